//! The floor: of every source the newest proven sets stay, whatever the rules say, and nothing goes before newer proven sets are there.

use std::collections::BTreeMap;

use crate::ops::retention::Group;

/// Keeps of every source the newest proven sets, and the newest one of any kind that was proven and holds it.
pub fn keep(groups: &mut [Group<'_>]) {
    // (number, group, place, counts), by source; a set of any group counts.
    let mut holding: BTreeMap<&str, Vec<(u64, usize, usize, bool)>> = BTreeMap::new();
    for (g, group) in groups.iter().enumerate() {
        for (at, set) in group.sets.iter().enumerate() {
            let counts = group.counts(at);
            if counts || set.grade >= Some(crate::model::record::Grade::ReadBack) {
                for source in &set.sources {
                    holding.entry(source).or_default().push((set.number, g, at, counts));
                }
            }
        }
    }
    let mut wanted = Vec::new();
    for (source, mut sets) in holding {
        sets.sort_unstable_by_key(|set| std::cmp::Reverse(set.0));
        let mut nth = BTreeMap::new();
        for (_, g, at, _) in sets.iter().filter(|set| set.3) {
            let most = groups[*g].policy.retention.map_or(1, |rules| rules.keep_min_verified.max(1));
            let nth: &mut u32 = nth.entry(*g).or_default();
            *nth += 1;
            if *nth <= most {
                wanted.push((*g, *at, format!("proven set {nth} of at least {most} of {source}")));
            }
        }
        if let Some((_, g, at, false)) = sets.first() {
            wanted.push((*g, *at, format!("the newest set that was read back and holds {source}")));
        }
    }
    for (g, at, why) in wanted {
        groups[g].keep_because(at, why);
    }
}

impl Group<'_> {
    /// Whether a set counts as proven for its sources.
    fn counts(&self, at: usize) -> bool {
        self.odd[at].is_none() && self.sets[at].is_proven()
    }
}

/// What stays, by source: numbers of the proven sets that are kept, newest last.
pub struct Guard(BTreeMap<String, Vec<u64>>);

impl Guard {
    /// Of what is kept so far.
    pub fn of(groups: &[Group<'_>]) -> Guard {
        let mut kept: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        for group in groups {
            for at in (0..group.sets.len()).filter(|at| !group.kept[*at].is_empty() && group.counts(*at)) {
                for source in &group.sets[at].sources {
                    kept.entry(source.clone()).or_default().push(group.sets[at].number);
                }
            }
        }
        kept.values_mut().for_each(|numbers| numbers.sort_unstable());
        Guard(kept)
    }

    /// Why a set that no rule keeps must stay all the same; `None` when it may go.
    pub fn needs(&self, group: &Group<'_>, at: usize) -> Option<String> {
        let set = group.sets[at];
        let least = group.policy.retention.map_or(1, |rules| rules.keep_min_verified.max(1)) as usize;
        for source in &set.sources {
            let stay = self.0.get(source).map_or(&[][..], Vec::as_slice);
            if stay.len() < least {
                return Some(format!(
                    "only {} of {least} proven sets of {source} would stay: nothing of it is freed before (drctl verify)",
                    stay.len()
                ));
            }
            if stay.last().is_none_or(|newest| *newest < set.number) {
                return Some(format!("no newer set of {source} is proven yet (drctl verify)"));
            }
        }
        // A set without one whole source frees nobody's place, and must not be the last there is either.
        let good = (0..group.sets.len()).rev().find(|at| group.odd[*at].is_none() && group.sets[*at].is_good());
        good.is_none_or(|newest| newest <= at).then(|| "there is no newer good set".to_owned())
    }
}
