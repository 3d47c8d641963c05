//! The `Date` header of an answer, which the SDK's outputs leave out.

use std::sync::{Arc, Mutex};

use aws_sdk_s3::config::interceptors::BeforeDeserializationInterceptorContextRef;
use aws_sdk_s3::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_s3::error::BoxError;
use jiff::Timestamp;

use crate::store::s3::fail::http_date;

/// Listens to one request.
#[derive(Clone, Debug, Default)]
pub struct DateOfAnswer(Arc<Mutex<Option<Timestamp>>>);

impl DateOfAnswer {
    /// The date, once the answer came.
    pub fn get(&self) -> Option<Timestamp> {
        *self.0.lock().unwrap_or_else(|p| p.into_inner())
    }
}

impl Intercept for DateOfAnswer {
    fn name(&self) -> &'static str {
        "DateOfAnswer"
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        *self.0.lock().unwrap_or_else(|p| p.into_inner()) = context.response().headers().get("date").and_then(http_date);
        Ok(())
    }
}
