//! What a store's user of each role may do, as the policy of a bucket or of an IAM user. Pure.
//!
//! Which keys a role touches follows from [`crate::catalog::keys::roles_for`] and from where records, leases and objects lie:
//!
//! | role | puts | deletes |
//! |---|---|---|
//! | writer | everything: objects, records, leases, the probe, key files (signed by the root key) | nothing |
//! | prover, restorer | records: proofs, holds, releases | nothing |
//! | pruner | records: intents, `deleted`, checkpoints | objects of sets, old leases, broken uploads |
//!
//! Every role reads and lists the repository's prefix, and nothing outside of it. Nobody deletes a record, a key file or the repository's own
//! file: an explicit Deny says so, which no other policy of the user outweighs (FORMAT rule 6).

use serde::Serialize;
use serde_json::{Value, json};

use crate::catalog::keys::{Role, Roles, all_in_one};
use crate::config::s3::{S3Place, S3Provider};

/// A policy document in the language of AWS, which the look-alikes share.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Policy {
    /// Version of that language.
    #[serde(rename = "Version")]
    pub version: &'static str,
    /// What is allowed and denied.
    #[serde(rename = "Statement")]
    pub statements: Vec<Statement>,
}

/// One statement.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Statement {
    /// Its name: letters and digits, unique among the roles of one repository.
    pub sid: String,
    /// `Allow` or `Deny`.
    pub effect: &'static str,
    /// Whom it is about; only in the policy of a bucket.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub principal: Option<Value>,
    /// `s3:GetObject` …
    pub action: Vec<&'static str>,
    /// `arn:aws:s3:::bucket/prefix/*` …
    pub resource: Vec<String>,
    /// When it holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub condition: Option<Value>,
}

/// The name of a set of roles: `writer`, `prover and restorer`, `all-in-one`.
pub fn roles_name(roles: &Roles) -> String {
    if *roles == all_in_one() {
        return "all-in-one".to_owned();
    }
    roles.iter().map(|role| role.name()).collect::<Vec<_>>().join(" and ")
}

/// Whether a policy can keep this provider's users from overwriting what stands there. AWS knows the condition keys `s3:if-none-match` and
/// `s3:ObjectCreationOperation` (S3 user guide, "Enforce conditional writes on Amazon S3 buckets"); of the others nothing is documented.
pub fn enforces_create_only(place: &S3Place) -> bool {
    place.provider() == S3Provider::Aws
}

/// What a user with these roles needs in the bucket. `users` are the principals of a bucket's policy; without any it is an IAM policy, which
/// is attached to the user.
pub fn policy(place: &S3Place, roles: &Roles, users: &[String]) -> Policy {
    let writer = Writer { place, roles, users, statements: Vec::new() };
    Policy { version: "2012-10-17", statements: writer.all() }
}

struct Writer<'a> {
    place: &'a S3Place,
    roles: &'a Roles,
    users: &'a [String],
    statements: Vec<Statement>,
}

impl Writer<'_> {
    fn all(mut self) -> Vec<Statement> {
        let has = |role| self.roles.contains(&role);
        let (writer, pruner, restorer) = (has(Role::Writer), has(Role::Pruner), has(Role::Restorer));
        let everything = [self.below("*")];
        let versions = |plain: &'static str, old: &'static str| if restorer { vec![plain, old] } else { vec![plain] };
        self.add("Read", "Allow", versions("s3:GetObject", "s3:GetObjectVersion"), &everything, None);
        // AWS asks for the right to list, with the key as the prefix, before it says of an object that it is not there.
        let inside = (!self.place.prefix.is_empty()).then(|| json!({ "StringLike": { "s3:prefix": format!("{}/*", self.place.prefix) } }));
        self.add("List", "Allow", versions("s3:ListBucket", "s3:ListBucketVersions"), &[self.bucket()], inside);

        let create_only = enforces_create_only(self.place);
        let puts = if writer { everything.clone() } else { [self.below("jobs/*/log/*")] };
        let if_none = create_only.then(|| json!({ "Null": { "s3:if-none-match": "false" } }));
        self.add("Create", "Allow", vec!["s3:PutObject"], &puts, if_none);
        if writer && create_only {
            // Beginning an upload and sending its parts, which take no condition; its completion falls under the statement before.
            let parts = json!({ "Bool": { "s3:ObjectCreationOperation": "false" } });
            self.add("SendParts", "Allow", vec!["s3:PutObject"], &everything, Some(parts));
        }
        if writer {
            // For `doctor`, and the alarm when they change.
            let asked = vec!["s3:GetBucketVersioning", "s3:GetBucketObjectLockConfiguration"];
            self.add("LookAtBucket", "Allow", asked, &[self.bucket()], None);
        }
        if writer || pruner {
            self.add("AbortUploads", "Allow", vec!["s3:AbortMultipartUpload"], &everything, None);
            // There is no condition that would keep this to a prefix.
            self.add("ListUploads", "Allow", vec!["s3:ListBucketMultipartUploads"], &[self.bucket()], None);
        }
        let deletes = vec!["s3:DeleteObject", "s3:DeleteObjectVersion"];
        if pruner {
            let gone = [self.below("jobs/*/sets/*"), self.below("jobs/*/lease/*")];
            self.add("Delete", "Allow", vec!["s3:DeleteObject"], &gone, None);
            let kept = ["jobs/*/log/*", "keys/*", "repository/*", "drctl-repository.json"].map(|keys| self.below(keys));
            self.add("KeepRecords", "Deny", deletes, &kept, None);
        } else {
            self.add("KeepAll", "Deny", deletes, &everything, None);
        }
        self.statements
    }

    fn bucket(&self) -> String {
        // The partitions of AWS have names of their own; everybody else takes the plain one.
        let partition = match self.place.region.as_deref() {
            Some(region) if region.starts_with("cn-") && enforces_create_only(self.place) => "aws-cn",
            Some(region) if region.starts_with("us-gov-") && enforces_create_only(self.place) => "aws-us-gov",
            _ => "aws",
        };
        format!("arn:{partition}:s3:::{}", self.place.bucket)
    }

    /// Keys of the repository, as a resource.
    fn below(&self, keys: &str) -> String {
        match self.place.prefix.as_str() {
            "" => format!("{}/{keys}", self.bucket()),
            prefix => format!("{}/{prefix}/{keys}", self.bucket()),
        }
    }

    fn add(&mut self, what: &str, effect: &'static str, action: Vec<&'static str>, resource: &[String], condition: Option<Value>) {
        let capital = |name: &str| name[..1].to_uppercase() + &name[1..];
        let who: String =
            if *self.roles == all_in_one() { "AllInOne".into() } else { self.roles.iter().map(|role| capital(role.name())).collect() };
        self.statements.push(Statement {
            sid: format!("Drctl{who}{what}"),
            effect,
            principal: (!self.users.is_empty()).then(|| json!({ "AWS": self.users })),
            action,
            resource: resource.to_vec(),
            condition,
        });
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn every_combination() -> Vec<Roles> {
        let all: Vec<Role> = all_in_one().into_iter().collect();
        (1..16).map(|bits: usize| all.iter().enumerate().filter(|(i, _)| bits >> i & 1 == 1).map(|(_, role)| *role).collect()).collect()
    }

    fn place(prefix: &str, provider: S3Provider) -> S3Place {
        S3Place { provider: Some(provider), ..S3Place::new("acme", prefix) }
    }

    /// `*` is any number of any characters, as in a resource of a policy.
    fn fits(pattern: &str, text: &str) -> bool {
        match pattern.split_once('*') {
            None => pattern == text,
            Some((head, rest)) => {
                text.strip_prefix(head).is_some_and(|text| (0..=text.len()).any(|at| text.is_char_boundary(at) && fits(rest, &text[at..])))
            }
        }
    }

    /// What the document says of one action on one key: an explicit Deny outweighs every Allow.
    fn may(policy: &Policy, action: &str, key: &str) -> bool {
        let says = |effect: &str| {
            let all = policy.statements.iter().filter(|s| s.effect == effect && s.action.contains(&action));
            all.flat_map(|s| &s.resource).any(|resource| fits(resource, &format!("arn:aws:s3:::acme/{key}")))
        };
        says("Allow") && !says("Deny")
    }

    const OBJECT: &str = "jobs/shop/sets/2025/01/01/020000Z-full-7k3q/files.a.tar";
    const KEYS: [&str; 7] = [
        OBJECT,
        "jobs/shop/log/0000000042.signed",
        "jobs/shop/lease/0000000007.json",
        "keys/0001.json",
        "repository/0001.json",
        "drctl-repository.json",
        "probe/create-only",
    ];

    #[test]
    fn each_role_may_do_its_own_and_nothing_outside_the_prefix() {
        for roles in every_combination() {
            let pruner = roles.contains(&Role::Pruner);
            let writer = roles.contains(&Role::Writer);
            for prefix in ["", "a/drctl"] {
                let policy = policy(&place(prefix, S3Provider::Versitygw), &roles, &[]);
                let at = |key: &str| if prefix.is_empty() { key.to_owned() } else { format!("{prefix}/{key}") };
                for key in KEYS {
                    let what = format!("{roles:?} {prefix:?} {key}");
                    assert!(may(&policy, "s3:GetObject", &at(key)), "{what}");
                    assert_eq!(may(&policy, "s3:GetObjectVersion", &at(key)), roles.contains(&Role::Restorer), "{what}");
                    assert_eq!(may(&policy, "s3:PutObject", &at(key)), writer || key.contains("/log/"), "{what}");
                    let goes = key.contains("/sets/") || key.contains("/lease/");
                    assert_eq!(may(&policy, "s3:DeleteObject", &at(key)), pruner && goes, "{what}");
                    assert!(!may(&policy, "s3:DeleteObjectVersion", &at(key)), "{what}");
                    if !prefix.is_empty() {
                        for outside in [key.to_owned(), format!("a/drctl2/{key}"), format!("b/{key}")] {
                            for action in ["s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload"] {
                                assert!(!may(&policy, action, &outside), "{roles:?} {action} {outside}");
                            }
                        }
                    }
                }
            }
        }
    }

    /// Names of jobs that look like parts of keys.
    #[test]
    fn rule_6_a_record_stays_whatever_the_job_is_called_and_its_sets_go() {
        let policy = policy(&place("p", S3Provider::Aws), &[Role::Pruner].into(), &[]);
        for job in ["log", "sets", "lease", "keys", "jobs", "repository"] {
            assert!(!may(&policy, "s3:DeleteObject", &format!("p/jobs/{job}/log/0000000001.signed")), "{job}");
            assert!(may(&policy, "s3:DeleteObject", &format!("p/{}", OBJECT.replace("shop", job))), "{job}");
        }
        let denied: Vec<_> = policy.statements.iter().filter(|s| s.effect == "Deny").collect();
        assert!(denied.iter().all(|s| s.condition.is_none()), "no condition weakens it");
    }

    #[test]
    fn partitions_of_aws() {
        for (region, provider, arn) in [
            ("eu-central-1", S3Provider::Aws, "arn:aws:s3:::acme"),
            ("cn-north-1", S3Provider::Aws, "arn:aws-cn:s3:::acme"),
            ("us-gov-west-1", S3Provider::Aws, "arn:aws-us-gov:s3:::acme"),
            ("cn-east-300", S3Provider::Other, "arn:aws:s3:::acme"),
        ] {
            let place = S3Place { region: Some(region.into()), ..place("", provider) };
            assert_eq!(policy(&place, &all_in_one(), &[]).statements[1].resource, [arn], "{region}");
        }
    }

    #[test]
    fn on_aws_nobody_overwrites() {
        for roles in every_combination() {
            let policy = policy(&place("p", S3Provider::Aws), &roles, &[]);
            let puts: Vec<&Statement> = policy.statements.iter().filter(|s| s.action.contains(&"s3:PutObject")).collect();
            assert_eq!(puts.len(), if roles.contains(&Role::Writer) { 2 } else { 1 });
            assert!(puts.iter().all(|s| s.condition.is_some()), "{puts:?}");
        }
    }

    #[test]
    fn names_are_letters_and_digits_and_no_two_roles_share_one() {
        let mut seen = BTreeSet::new();
        for roles in every_combination() {
            for statement in policy(&place("p", S3Provider::Aws), &roles, &["u".into()]).statements {
                assert!(statement.sid.bytes().all(|b| b.is_ascii_alphanumeric()), "{}", statement.sid);
                assert_eq!(statement.principal, Some(json!({ "AWS": ["u"] })));
                assert!(seen.insert(statement.sid.clone()), "{} stands twice", statement.sid);
            }
        }
        assert_eq!(roles_name(&all_in_one()), "all-in-one");
        assert_eq!(roles_name(&[Role::Prover, Role::Restorer].into()), "prover and restorer");
    }
}
