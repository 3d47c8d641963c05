//! What a restore could not load: told in full, and decided by a person.

use std::fmt::Write as _;

use crate::cli::Shell;
use crate::cli::output::{confirm, is_interactive};
use crate::error::{Error, Kind, Result};
use crate::model::SetId;
use crate::ops::restore::run::{Accepted, Decide, Found};
use crate::source::load::LoadProblem;

/// Decides by `--accept-load-errors N`, else by asking.
pub struct Accept<'a> {
    pub shell: &'a Shell,
    /// At most so many are accepted without being asked.
    pub at_most: Option<usize>,
    /// The line that accepts what was found, but for the number.
    pub line: String,
    /// What was live before a load in place, saved.
    pub safety_sets: Vec<SetId>,
}

/// `1 object`, `3 objects`.
fn objects(problems: &[LoadProblem]) -> String {
    if problems.len() == 1 { "1 object".to_owned() } else { format!("{} objects", problems.len()) }
}

/// Every problem with object, reason and statement.
pub fn problems_text(problems: &[LoadProblem]) -> String {
    let mut out = String::new();
    for (n, problem) in problems.iter().enumerate() {
        let _ = writeln!(out, "  {}. {}: {}\n     why: {}", n + 1, problem.artifact, problem.object, problem.reason);
        for (at, line) in problem.statement.lines().filter(|line| !line.trim().is_empty()).enumerate() {
            let _ = writeln!(out, "     {} {line}", if at == 0 { "sql:" } else { "    " });
        }
    }
    out
}

impl Accept<'_> {
    /// Nothing live is left and nobody can be asked: a database that lacks something is better than none.
    fn take_unasked(&self, what: &str) {
        let back = match self.safety_sets.as_slice() {
            [] => "no safety set was made".to_owned(),
            sets => {
                let lines: Vec<String> = sets.iter().map(|set| format!("drctl restore {set} --in-place")).collect();
                format!("back to what was live before: {}", lines.join("; "))
            }
        };
        self.shell.bus.warn(format!(
            "{what} could not be loaded, which only the rows showed, when what was live was gone: as nobody can be asked, what was loaded is \
             taken without them, since nothing else would be live; {back}"
        ));
    }
}

impl Decide for Accept<'_> {
    fn accept(&self, problems: &[LoadProblem], found: Found) -> Result<Accepted> {
        let live_is_gone = found == Found::InPlace;
        let (count, what) = (problems.len(), objects(problems));
        if self.shell.out.json {
            for LoadProblem { artifact, object, statement, reason } in problems {
                self.shell.bus.warn(format!("{artifact}: {object} could not be loaded: {reason}; {statement}"));
            }
        } else {
            let rows = match found {
                Found::Beside | Found::InPlace => "Every row is there and was counted, but",
                Found::Rehearsed => "Without rows yet:",
            };
            eprint!(
                "\n{rows} {what} could not be loaded, neither by pg_restore nor one by one afterwards:\n\n{}\n",
                problems_text(problems)
            );
        }
        let first = problems.first().map(|p| format!("{} ({})", p.object, p.reason)).unwrap_or_default();
        let refused = |why: &str| {
            let state =
                if live_is_gone { "the live data was dropped before, what was loaded is kept aside" } else { "nothing live was changed" };
            Error::new(
                Kind::Preflight,
                format!("{what} could not be loaded, {first}{}; {why}: {state}", if count > 1 { " the first of them" } else { "" }),
            )
            .hint(format!(
                "{}{} --accept-load-errors {count}    takes what is there; the statements above can be run by hand afterwards",
                self.line,
                // There is nothing left to make one of.
                if live_is_gone && !self.line.contains("--no-safety-set") { " --no-safety-set" } else { "" }
            ))
        };
        match self.at_most {
            Some(most) if count <= most => return Ok(Accepted::ByPerson),
            Some(most) if !live_is_gone => return Err(refused(&format!("{most} were accepted"))),
            _ => {}
        }
        match (is_interactive(), live_is_gone) {
            (true, _) if confirm("Go on without these?")? && !self.shell.cancel.is_cancelled() => Ok(Accepted::ByPerson),
            (true, _) => Err(refused("that was not accepted")),
            (false, true) => {
                self.take_unasked(&what);
                Ok(Accepted::Unasked)
            }
            (false, false) => Err(refused("nobody is there to accept that")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f92_every_problem_is_told_with_object_reason_and_statement() {
        let problem = LoadProblem {
            artifact: "shop".into(),
            object: "FK CONSTRAINT public.c c_i_fkey".into(),
            statement: "ALTER TABLE ONLY public.c\n    ADD CONSTRAINT c_i_fkey …;\n".into(),
            reason: "insert or update on table \"c\" violates foreign key constraint".into(),
        };
        let text = problems_text(&[problem.clone(), problem]);
        let want = "  1. shop: FK CONSTRAINT public.c c_i_fkey\n     why: insert or update on table \"c\" violates foreign key constraint\n     \
                    sql: ALTER TABLE ONLY public.c\n              ADD CONSTRAINT c_i_fkey …;\n  2. ";
        assert!(text.starts_with(want), "{text}");
    }
}
