//! Which authorities, certificates and secrets there should be. Decides names, lifetimes and rotation; keys are made by
//! the shell, and Docker's secrets are the only store.
//!
//! At first start a controller asks for an authority in a secret that its own service then mounts. The secret's content
//! cannot be read back through the API, so a controller that loses the race to create it mounts the winner's. Whoever
//! has the newest authority's key makes one identity per service cluster, in a secret that the proxies mount.
//! Everything is renewed when a third of its life is left; old and new are both accepted meanwhile. What is over is unmounted
//! first and removed then, since Docker keeps a secret that is in use.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use crate::id::{ClusterName, SecretId};
use crate::reconcile::desired::CLUSTER_LABEL;
use crate::swarm::model::{STACK_LABEL, Secret};
use crate::time::Duration;

/// How long an authority is valid.
pub const AUTHORITY_LIFE: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// How long a role's certificate is valid.
pub const CERTIFICATE_LIFE: Duration = Duration::from_secs(365 * 24 * 3600);

/// Secret label: `authority`, `courier` or `proxy`.
pub const IDENTITY_LABEL: &str = "tidegate.identity";
/// Secret label: the installation (the controllers' stack) that made it.
pub const INSTALLATION_LABEL: &str = "tidegate.installation";
/// Secret label: a number that grows with each renewal.
pub const GENERATION_LABEL: &str = "tidegate.generation";
/// Secret label: the end of its life, in seconds since 1970.
pub const NOT_AFTER_LABEL: &str = "tidegate.not-after";
/// Secret label of an identity of proxies or couriers: generations of the authorities that it trusts, with commas.
pub const ROOTS_LABEL: &str = "tidegate.roots";

/// File name prefix of a mounted authority, followed by its generation.
pub const AUTHORITY_FILE: &str = "tidegate-authority-";
/// File name of a mounted identity, of proxies and couriers.
pub const PROXY_FILE: &str = "tidegate-identity";

/// What there should be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IdentityPlan {
    /// Secrets to make now.
    pub create: Vec<NewSecret>,
    /// Secrets to remove once nothing mounts them, by name: their life is over.
    pub remove: BTreeMap<String, SecretId>,
    /// What the controllers' service should mount: secret name -> file name.
    pub controller_mounts: BTreeMap<String, String>,
    /// Secrets that it should no longer mount: authorities whose life is over, where there is another one.
    pub controller_unmounts: BTreeSet<String>,
    /// What each cluster's proxies should mount, where it exists.
    pub proxy_secrets: BTreeMap<ClusterName, String>,
    /// What the courier should mount, where it exists.
    pub courier_secret: Option<String>,
}

/// A secret to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewSecret {
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: Vec<(String, String)>,
    /// What to put into it.
    pub content: Content,
}

/// What the shell puts into a new secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// A new authority.
    Authority,
    /// An identity for the courier, signed by the newest of `roots`, trusting all of them.
    Courier {
        /// Generations of authorities.
        roots: BTreeSet<u64>,
    },
    /// An identity for proxies, signed by the newest of `roots`, trusting all of them.
    Proxy {
        /// Whose table it opens.
        cluster: ClusterName,
        /// Generations of authorities.
        roots: BTreeSet<u64>,
    },
}

/// Decides from the secrets that exist (`secrets`), the authorities whose key this controller has (`mounted`) and the
/// wall time since 1970. `with_courier`: whether there is to be a courier.
pub fn plan<'a>(
    installation: &str,
    secrets: impl Iterator<Item = &'a Secret>,
    mounted: &BTreeSet<u64>,
    clusters: impl Iterator<Item = &'a ClusterName>,
    with_courier: bool,
    wall: Duration,
) -> IdentityPlan {
    let mut plan = IdentityPlan::default();
    let mut authorities: BTreeMap<u64, Known<'_>> = BTreeMap::new();
    // Of `None`: the courier.
    let mut members: BTreeMap<Option<ClusterName>, BTreeMap<u64, Known<'_>>> = BTreeMap::new();
    for secret in secrets {
        let Some(known) = Known::read(secret, installation) else {
            continue;
        };
        if known.is_over(wall) {
            plan.remove.insert(secret.name.clone(), secret.id.clone());
        }
        let kind = secret.labels.get(IDENTITY_LABEL).map(String::as_str);
        let cluster = secret.labels.get(CLUSTER_LABEL);
        match (kind, cluster) {
            (Some("authority"), _) => {
                authorities.insert(known.generation, known);
            }
            (Some("courier"), _) => {
                members.entry(None).or_default().insert(known.generation, known);
            }
            (_, Some(cluster)) => {
                let cluster = ClusterName::from(cluster.as_str());
                members
                    .entry(Some(cluster))
                    .or_default()
                    .insert(known.generation, known);
            }
            (_, None) => {}
        }
    }
    // Numbers of what is over are not given again: it may be mounted still, and its name is taken until then.
    let next_authority = next_generation(&authorities);
    let (over, authorities): (BTreeMap<_, _>, BTreeMap<_, _>) =
        authorities.into_iter().partition(|(_, known)| known.is_over(wall));
    let newest = authorities
        .last_key_value()
        .map(|(generation, known)| (*generation, known.not_after));
    // In an authority's last year controllers show a certificate of the next one, which those that trust it alone do not believe.
    let is_ending = newest.is_some_and(|(_, not_after)| not_after < wall + CERTIFICATE_LIFE);
    if newest.is_none_or(|(_, not_after)| is_old(not_after, AUTHORITY_LIFE, wall)) {
        let labels = labels(installation, "authority", next_authority, wall + AUTHORITY_LIFE);
        plan.create.push(NewSecret {
            name: format!("{installation}-authority-{next_authority}"),
            labels,
            content: Content::Authority,
        });
    }
    for (generation, known) in &authorities {
        plan.controller_mounts
            .insert(known.name.to_string(), format!("{AUTHORITY_FILE}{generation}"));
    }
    if newest.is_some() {
        plan.controller_unmounts = over.values().map(|known| known.name.to_string()).collect();
    }
    let roots: BTreeSet<u64> = authorities.keys().copied().collect();
    let wanted = clusters.cloned().map(Some).chain(with_courier.then_some(None));
    for member in wanted {
        let generations = members.remove(&member).unwrap_or_default();
        let last = generations.values().next_back().filter(|known| !known.is_over(wall));
        if let Some(known) = last {
            match &member {
                Some(cluster) => {
                    plan.proxy_secrets.insert(cluster.clone(), known.name.to_string());
                }
                None => plan.courier_secret = Some(known.name.to_string()),
            }
        }
        let is_good =
            last.is_some_and(|known| !is_old(known.not_after, CERTIFICATE_LIFE, wall) && known.roots == roots);
        let can_sign = newest.is_some_and(|(generation, _)| mounted.contains(&generation)) && roots.is_subset(mounted);
        if is_good || !can_sign || is_ending {
            continue;
        }
        let generation = next_generation(&generations);
        let kind = if member.is_some() { "proxy" } else { "courier" };
        let mut labels = labels(installation, kind, generation, wall + CERTIFICATE_LIFE);
        let listed: Vec<String> = roots.iter().map(u64::to_string).collect();
        labels.push((ROOTS_LABEL.to_string(), listed.join(",")));
        let roots = roots.clone();
        let (name, content) = match member {
            Some(cluster) => {
                labels.push((CLUSTER_LABEL.to_string(), cluster.to_string()));
                let name = format!("{installation}-proxy-{cluster}-{generation}");
                (name, Content::Proxy { cluster, roots })
            }
            None => (
                format!("{installation}-courier-{generation}"),
                Content::Courier { roots },
            ),
        };
        plan.create.push(NewSecret { name, labels, content });
    }
    plan
}

/// Which of these authorities, by generation with the end of its life, signs at `wall` what a controller shows: the oldest one
/// that outlives it, since every proxy knows that one; the newest where none does. `None` where there is none.
pub fn signs_for_controllers(ends: &BTreeMap<u64, Duration>, wall: Duration) -> Option<u64> {
    let outlives = |end: &Duration| *end >= wall + CERTIFICATE_LIFE;
    let oldest = ends.iter().find(|(_, end)| outlives(end));
    oldest
        .or_else(|| ends.last_key_value())
        .map(|(generation, _)| *generation)
}

struct Known<'a> {
    name: &'a str,
    generation: u64,
    not_after: Duration,
    roots: BTreeSet<u64>,
}

impl<'a> Known<'a> {
    fn is_over(&self, wall: Duration) -> bool {
        self.not_after <= wall
    }

    /// None for secrets that are not ours, or whose labels an operator broke.
    fn read(secret: &'a Secret, installation: &str) -> Option<Known<'a>> {
        let label = |key: &str| secret.labels.get(key).map(String::as_str);
        if label(INSTALLATION_LABEL) != Some(installation) || label(IDENTITY_LABEL).is_none() {
            return None;
        }
        Some(Known {
            name: &secret.name,
            generation: label(GENERATION_LABEL)?.parse().ok()?,
            not_after: Duration::from_secs(label(NOT_AFTER_LABEL)?.parse().ok()?),
            roots: label(ROOTS_LABEL)
                .unwrap_or_default()
                .split(',')
                .filter_map(|root| root.parse().ok())
                .collect(),
        })
    }
}

fn labels(installation: &str, kind: &str, generation: u64, not_after: Duration) -> Vec<(String, String)> {
    [
        (IDENTITY_LABEL, kind.to_string()),
        (INSTALLATION_LABEL, installation.to_string()),
        (GENERATION_LABEL, generation.to_string()),
        (NOT_AFTER_LABEL, not_after.as_secs().to_string()),
        // `docker stack rm` of the controllers takes it along.
        (STACK_LABEL, installation.to_string()),
    ]
    .map(|(key, value)| (key.to_string(), value))
    .to_vec()
}

fn next_generation(all: &BTreeMap<u64, Known<'_>>) -> u64 {
    all.last_key_value().map_or(1, |(generation, _)| generation + 1)
}

/// Whether less than a third of a life is left.
fn is_old(not_after: Duration, life: Duration, wall: Duration) -> bool {
    not_after.saturating_sub(wall) < life / 3
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(1_800_000_000);

    /// Secrets as Docker would have them after the plan was carried out.
    fn carry_out(secrets: &mut Vec<Secret>, plan: &IdentityPlan) {
        for new in &plan.create {
            assert!(
                secrets.iter().all(|secret| secret.name != new.name),
                "{} is new",
                new.name
            );
            secrets.push(Secret {
                id: SecretId::from(format!("id-{}", new.name)),
                name: new.name.clone(),
                labels: new.labels.iter().cloned().collect(),
            });
        }
        secrets.retain(|secret| !plan.remove.contains_key(&secret.name));
    }

    fn plan_at(secrets: &[Secret], mounted: &[u64], wall: Duration) -> IdentityPlan {
        let clusters = [ClusterName::from("default"), ClusterName::from("east")];
        plan(
            "tidegate",
            secrets.iter(),
            &mounted.iter().copied().collect(),
            clusters.iter(),
            true,
            wall,
        )
    }

    /// Whom each new identity trusts.
    fn trusted(plan: &IdentityPlan) -> Vec<Vec<u64>> {
        let roots = |new: &NewSecret| match &new.content {
            Content::Authority => Vec::new(),
            Content::Courier { roots } | Content::Proxy { roots, .. } => roots.iter().copied().collect(),
        };
        plan.create.iter().map(roots).collect()
    }

    /// An authority, and identities that it signed.
    fn settled() -> Vec<Secret> {
        let mut secrets = Vec::new();
        for mounted in [&[][..], &[1]] {
            let made = plan_at(&secrets, mounted, NOW);
            carry_out(&mut secrets, &made);
        }
        secrets
    }

    #[test]
    fn a_fresh_swarm_gets_an_authority_then_identities() {
        let mut secrets = Vec::new();
        let first = plan_at(&secrets, &[], NOW);
        assert_eq!(first.create.len(), 1);
        assert_eq!(first.create[0].content, Content::Authority);
        carry_out(&mut secrets, &first);
        // Made, but not mounted yet: nobody here can sign.
        let second = plan_at(&secrets, &[], NOW);
        assert_eq!(second.create, []);
        assert_eq!(second.controller_mounts["tidegate-authority-1"], "tidegate-authority-1");
        let third = plan_at(&secrets, &[1], NOW);
        assert_eq!(third.create.len(), 3);
        carry_out(&mut secrets, &third);
        let settled = plan_at(&secrets, &[1], NOW);
        assert_eq!((settled.create.len(), settled.remove.len()), (0, 0));
        assert_eq!(
            settled.proxy_secrets[&ClusterName::from("east")],
            "tidegate-proxy-east-1"
        );
        assert_eq!(settled.courier_secret.as_deref(), Some("tidegate-courier-1"));
    }

    #[test]
    fn a_certificate_is_renewed_when_a_third_of_its_life_is_left() {
        let mut secrets = settled();
        let early = NOW + CERTIFICATE_LIFE / 2;
        assert_eq!(plan_at(&secrets, &[1], early).create, []);
        let late = NOW + CERTIFICATE_LIFE * 3 / 4;
        let renewal = plan_at(&secrets, &[1], late);
        assert_eq!(renewal.create.len(), 3);
        carry_out(&mut secrets, &renewal);
        assert_eq!(
            plan_at(&secrets, &[1], late).proxy_secrets[&ClusterName::from("default")],
            "tidegate-proxy-default-2"
        );
        let over = NOW + CERTIFICATE_LIFE + Duration::from_secs(1);
        assert_eq!(
            plan_at(&secrets, &[1], over).remove.len(),
            3,
            "the first generation is over"
        );
    }

    #[test]
    fn a_new_authority_is_trusted_by_all_before_the_old_one_ends() {
        let mut secrets = Vec::new();
        carry_out(&mut secrets, &plan_at(&[], &[], NOW));
        let late = NOW + AUTHORITY_LIFE * 3 / 4;
        let plan = plan_at(&secrets, &[1], late);
        assert_eq!(plan.create[0].name, "tidegate-authority-2");
        carry_out(&mut secrets, &plan);
        let plan = plan_at(&secrets, &[1], late);
        assert_eq!(plan.controller_mounts.len(), 2, "both are mounted");
        assert_eq!(plan.create, [], "the newest key is not here yet");
        let plan = plan_at(&secrets, &[1, 2], late);
        assert_eq!(trusted(&plan), [&[1, 2]; 3]);
    }

    /// As when no controller ran for years.
    #[test]
    fn nobody_is_made_to_trust_an_authority_in_its_last_year_alone() {
        let mut secrets = settled();
        let late = NOW + AUTHORITY_LIFE - CERTIFICATE_LIFE / 2;
        let plan = plan_at(&secrets, &[1], late);
        let names: Vec<&str> = plan.create.iter().map(|new| new.name.as_str()).collect();
        assert_eq!(names, ["tidegate-authority-2"]);
        carry_out(&mut secrets, &plan);
        assert_eq!(trusted(&plan_at(&secrets, &[1, 2], late)), [&[1, 2]; 3]);
    }

    #[test]
    fn controllers_show_a_certificate_of_the_oldest_authority_that_outlives_it() {
        let year = CERTIFICATE_LIFE;
        let signer = |ends: &[(u64, Duration)]| signs_for_controllers(&ends.iter().copied().collect(), NOW);
        assert_eq!(signer(&[(1, NOW + year), (2, NOW + year * 9)]), Some(1));
        assert_eq!(
            signer(&[(1, NOW + year - Duration::from_secs(1)), (2, NOW + year * 9)]),
            Some(2)
        );
        assert_eq!(signer(&[(1, NOW - year), (2, NOW + year / 2)]), Some(2));
        assert_eq!(signer(&[]), None);
    }

    #[test]
    fn an_authority_that_is_over_is_unmounted_and_nobody_trusts_it() {
        let mut secrets = Vec::new();
        carry_out(&mut secrets, &plan_at(&[], &[], NOW));
        let late = NOW + AUTHORITY_LIFE * 3 / 4;
        let renewal = plan_at(&secrets, &[1], late);
        carry_out(&mut secrets, &renewal);
        assert!(plan_at(&secrets, &[1, 2], late).controller_unmounts.is_empty());
        let plan = plan_at(&secrets, &[1, 2], NOW + AUTHORITY_LIFE);
        let first = "tidegate-authority-1".to_string();
        assert_eq!(plan.controller_unmounts, [first.clone()].into());
        assert!(plan.remove.contains_key(&first));
        assert_eq!(plan.controller_mounts.len(), 1);
        assert_eq!(trusted(&plan), [&[2]; 3]);
    }

    #[test]
    fn where_everything_is_over_new_names_are_taken_as_docker_keeps_what_is_mounted() {
        let mut secrets = settled();
        let much_later = NOW + AUTHORITY_LIFE * 2;
        let plan = plan_at(&secrets, &[1], much_later);
        assert_eq!(plan.remove.len(), 4);
        let names = |plan: &IdentityPlan| -> Vec<String> { plan.create.iter().map(|new| new.name.clone()).collect() };
        assert_eq!(names(&plan), ["tidegate-authority-2"]);
        assert!(plan.controller_unmounts.is_empty(), "there is no other one yet");
        // Docker removes nothing that is mounted.
        carry_out(
            &mut secrets,
            &IdentityPlan {
                remove: BTreeMap::new(),
                ..plan
            },
        );
        let plan = plan_at(&secrets, &[1, 2], much_later);
        assert_eq!(plan.controller_unmounts.len(), 1);
        assert_eq!(
            names(&plan),
            [
                "tidegate-proxy-default-2",
                "tidegate-proxy-east-2",
                "tidegate-courier-2"
            ]
        );
    }

    #[test]
    fn secrets_of_others_are_left_alone() {
        let mut secrets = Vec::new();
        carry_out(&mut secrets, &plan_at(&[], &[], NOW));
        secrets[0]
            .labels
            .insert(INSTALLATION_LABEL.to_string(), "another".to_string());
        secrets.push(Secret {
            id: "x".into(),
            name: "app-key".into(),
            labels: BTreeMap::new(),
        });
        let plan = plan_at(&secrets, &[], NOW + AUTHORITY_LIFE * 2);
        assert!(plan.remove.is_empty());
        assert_eq!(plan.create.len(), 1);
        assert!(plan.controller_mounts.is_empty());
    }
}
