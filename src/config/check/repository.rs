//! The repository: stores, keys, codec.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use super::reference::key_file;
use super::{Scope, check_name, items};
use crate::config::problem::{shorten, suggestion};
use crate::config::raw::{RawCodec, RawEncryption, RawRepository, RawStore};
use crate::config::typed::{Repository, StoreConfig, StorePlace};
use crate::model::Codec;

/// The repository, or `None` when a finding stands in the way.
pub fn repository(scope: &Scope<'_>, raw: &RawRepository) -> Option<Repository> {
    let id = raw.id.as_ref().filter(|id| {
        let good = (4..=64).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
        if !good {
            scope.key("id").error(format!("'{}' is not a repository's id: 4 to 64 letters, digits, '-' or '_'", shorten(id)));
        }
        good
    });
    let root_key = raw.root_key.as_ref().filter(|key| {
        let good = minisign::PublicKey::from_base64(key).is_ok();
        if !good {
            scope.key("root_key").error("is not a minisign public key; drctl-repository.json and the recovery file have it");
        }
        good
    });
    let stores = stores(&scope.key("stores"), raw);
    let encrypt = raw.encryption != Some(RawEncryption::None);
    let recipients = recipients(&scope.key("recipients"), raw);
    if encrypt && items(&raw.recipients).next().is_none() {
        scope.key("recipients").error("missing: without a public key (age1…) nobody could open a set; drctl init makes one");
    }
    let identity = raw.identity.as_ref().map(|text| key_file(&scope.key("identity"), text));
    let signing_key = raw.signing_key.as_ref().and_then(|text| key_file(&scope.key("signing_key"), text));
    let codec = match &raw.codec {
        Some(raw) => codec(&scope.key("codec"), raw),
        None => Some(Codec::Zstd { level: 1 }),
    };
    Some(Repository {
        id: id?.clone(),
        root_key: root_key?.clone(),
        stores: stores?,
        recipients,
        identity: match identity {
            Some(found) => Some(found?),
            None => None,
        },
        signing_key: signing_key?,
        encrypt,
        codec: codec?,
        decode_check: raw.decode_check.unwrap_or(true),
    })
}

fn recipients(scope: &Scope<'_>, raw: &RawRepository) -> Vec<String> {
    let mut good = BTreeSet::new();
    for (i, text) in items(&raw.recipients) {
        let scope = scope.index(i);
        if text.to_ascii_uppercase().starts_with("AGE-SECRET-KEY-") {
            // Not repeated: it is a secret.
            scope.error("this is a private key; recipients are public keys (age1…), the private key belongs into the identity file");
            continue;
        }
        match text.parse::<age::x25519::Recipient>() {
            Ok(recipient) => {
                if !good.insert(recipient.to_string()) {
                    scope.warn("stands twice");
                }
            }
            Err(why) => scope.error(format!("'{}' is not an age public key (age1…): {why}", shorten(text))),
        }
    }
    good.into_iter().collect()
}

fn stores(scope: &Scope<'_>, raw: &RawRepository) -> Option<Vec<StoreConfig>> {
    let mut all = Vec::new();
    let mut whole = true;
    let mut seen: BTreeMap<&str, String> = BTreeMap::new();
    for (i, raw) in items(&raw.stores) {
        let scope = scope.index(i);
        if let Some(name) = raw.name.as_deref() {
            match seen.get(name) {
                Some(first) => scope.key("name").error(format!("'{}' names two stores, first at {first}", shorten(name))),
                None => {
                    seen.insert(name, scope.key("name").place());
                }
            }
        }
        match store(&scope, raw) {
            Some(store) => {
                same_place(&scope, &all, &store);
                all.push(store);
            }
            None => whole = false,
        }
        if raw.optional == Some(true) && i == 0 {
            scope.key("optional").error("the first store holds the log and cannot be optional");
        }
        if raw.single_writer.is_some() && i > 0 {
            scope.key("single_writer").error("is for the first store only: copies hold nothing that two writers could fight over");
        }
    }
    (whole && !all.is_empty()).then_some(all)
}

/// Two stores in one place are one: what takes away the first takes away the copy.
fn same_place(scope: &Scope<'_>, before: &[StoreConfig], store: &StoreConfig) {
    // A link to a folder is that folder.
    let real = |path: &Path| std::fs::canonicalize(path).unwrap_or_else(|_| clean(path));
    for other in before {
        let (twin, inside) = match (&store.place, &other.place) {
            (StorePlace::Local { path }, StorePlace::Local { path: other }) => {
                let (here, there) = (real(path), real(other));
                (here == there, here.starts_with(&there) || there.starts_with(&here))
            }
            (here, there) => (here.same(there), false),
        };
        if twin {
            return scope.error(format!("lies where the store '{}' lies; a copy in the same place is none", other.name));
        }
        if inside {
            return scope.error(format!("one of this store and '{}' lies inside the other; give each a folder of its own", other.name));
        }
    }
}

/// A path without `.` and `..`, for a folder that is not there yet.
fn clean(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => drop(clean.pop()),
            part => clean.push(part),
        }
    }
    clean
}

fn store(scope: &Scope<'_>, raw: &RawStore) -> Option<StoreConfig> {
    let name = raw.name.as_ref().filter(|name| check_name(&scope.key("name"), name));
    if let Some(s3) = &raw.s3 {
        if raw.local.is_some() {
            scope.key("local").error("a store lies in one place; take local or s3 away");
        }
        let place = super::s3::s3(&scope.key("s3"), s3)?;
        return Some(StoreConfig {
            name: name?.clone(),
            optional: raw.optional.unwrap_or(false),
            single_writer: raw.single_writer,
            place: StorePlace::S3(Box::new(place)),
        });
    }
    let Some(local) = &raw.local else {
        // What the schema refused stands in the tree, and has been told.
        if ["local", "s3"].iter().all(|key| scope.root.at(&scope.key(key).path).is_none()) {
            scope.error("says not where it lies; add local: { path: /… } or s3: { bucket: … }");
        }
        return None;
    };
    let path = scope.key("local").key("path").path(local.path.as_ref()?);
    Some(StoreConfig {
        name: name?.clone(),
        optional: raw.optional.unwrap_or(false),
        single_writer: raw.single_writer,
        place: StorePlace::Local { path: path? },
    })
}

fn codec(scope: &Scope<'_>, raw: &RawCodec) -> Option<Codec> {
    match raw {
        RawCodec::Name(name) => match name.as_str() {
            "zstd" => Some(Codec::Zstd { level: 1 }),
            "gzip" => Some(Codec::Gzip { level: 6 }),
            "none" => Some(Codec::None),
            other => {
                scope.error(format!("'{}' is not a codec{}", shorten(other), suggestion(other, &["zstd", "gzip", "none"])));
                None
            }
        },
        RawCodec::Level(levels) => match (levels.zstd, levels.gzip) {
            (Some(level), _) => i32::try_from(level).ok().map(|level| Codec::Zstd { level }),
            (None, Some(level)) => Some(Codec::Gzip { level }),
            (None, None) => None,
        },
    }
}
