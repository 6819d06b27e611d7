//! What the pool is told by others: tables, policies, who fails active checks, and how apps behave.

use std::net::SocketAddr;
use std::sync::Arc;

use tidegate_core::id::{EndpointId, NetworkId};
use tidegate_core::machine::Input;
use tidegate_core::pool::prober::Unfit;
use tidegate_core::pool::{Fact, Member, PoolPolicy, ServicePolicy};
use tidegate_core::rng::Rng;
use tidegate_core::route::spec::{Balance, EndpointSpec, Leaving, RouteLimits};
use tidegate_core::route::statuses::ServerErrors;
use tidegate_core::settings::proxy::ProxySettings;
use tidegate_core::time::Duration;

use super::shadow::Cause;
use super::{Mood, World};

/// Endpoints that there are at most.
const PLACES: u64 = 8;

impl World<'_> {
    pub(super) fn change_table(&mut self) {
        let all_leave = self.rng.chance(1, 12);
        for member in self.table.values_mut().filter(|_| all_leave) {
            member.spec.leaving = Some(Leaving { last_resort_ms: 1_500 });
        }
        for _ in 0..self.rng.between(1, 3) {
            let n = self.rng.between(1, PLACES) as u16;
            let services = self.policy.services.len().max(1);
            let Some(member) = self.table.get_mut(&n) else {
                self.lives += u32::from(self.rng.chance(1, 2));
                let member = member(&mut self.rng, n, self.lives, services);
                self.table.insert(n, member);
                continue;
            };
            match self.rng.below(8) {
                0 | 1 => _ = self.table.remove(&n),
                2 => {
                    let last_resort_ms = self.rng.below(4) as u32 * 700;
                    member.spec.leaving = Some(Leaving { last_resort_ms });
                }
                3 | 4 => member.spec.leaving = None,
                5 => member.spec.unsure = !member.spec.unsure,
                6 => member.service = self.rng.index(services),
                _ => {
                    self.lives += 1;
                    member.spec.id = id(n, self.lives);
                }
            }
        }
        self.adopt_table();
    }

    pub(super) fn adopt_table(&mut self) {
        let told = |member: &Member| {
            let spec = &member.spec;
            let leaving = spec.leaving.map_or(String::new(), |leaving| format!(" {leaving:?}"));
            let unsure = if spec.unsure { " unsure" } else { "" };
            format!("{} of {}{leaving}{unsure}", spec.id, member.service)
        };
        let told: Vec<String> = self.table.values().map(told).collect();
        self.tell(format!("table: {told:?}"));
        let members: Vec<Member> = self.table.values().cloned().collect();
        self.shadow.want(&members, &self.policy);
        self.step(Input::Fact(Fact::Spec(members, self.policy.clone())), Cause::Table);
        self.known.extend(self.shadow.seats.keys());
    }

    pub(super) fn change_unfit(&mut self) {
        let mut unfit = Unfit::clone(&self.unfit);
        let n = self.rng.between(1, PLACES) as u16;
        let dice = self.rng.below(4);
        if dice == 0 {
            unfit.clear();
        } else if dice == 1 {
            unfit.retain(|(_, addr, _)| addr.port() != n);
        } else if let Some(member) = self.table.get(&n) {
            let spec = &member.spec;
            unfit.insert((spec.id.clone(), spec.addr, spec.via.clone()));
        }
        self.distrust(unfit);
    }

    pub(super) fn distrust(&mut self, unfit: Unfit) {
        self.shadow.distrust(&unfit);
        self.unfit = Arc::new(unfit);
        self.step(Input::Fact(Fact::Unfit(Arc::clone(&self.unfit))), Cause::Unfit);
    }

    pub(super) fn change_mood(&mut self) {
        let moods = [
            Mood::Fails,
            Mood::Flickers,
            Mood::Hangs,
            Mood::Lost,
            Mood::Refuses,
            Mood::Well,
        ];
        let mood = match self.rng.below(3) {
            0 => moods[self.rng.index(moods.len())],
            1 => Mood::Flickers,
            _ => Mood::Well,
        };
        let n = self.rng.between(1, PLACES) as u16;
        self.tell(format!("{n} {mood:?}"));
        self.moods.insert(n, mood);
    }

    pub(super) fn change_policy(&mut self) {
        self.policy = policy(&mut self.rng, self.policy.services.len());
        self.tell(format!("{:?}", self.policy));
        self.adopt_table();
    }
}

fn id(n: u16, life: u32) -> EndpointId {
    EndpointId::from(format!("task{n}.{life}"))
}

pub(super) fn member(rng: &mut Rng, n: u16, life: u32, services: usize) -> Member {
    Member {
        spec: EndpointSpec {
            id: id(n, life),
            addr: SocketAddr::from(([10, 0, 0, 1], n)),
            via: (n > 5).then(|| NetworkId::from("net")),
            node: None,
            leaving: rng.chance(1, 20).then_some(Leaving { last_resort_ms: 900 }),
            unsure: rng.chance(1, 20),
        },
        service: rng.index(services),
    }
}

pub(super) fn policy(rng: &mut Rng, services: usize) -> PoolPolicy {
    let mut one_of = |values: &[u64]| values[rng.index(values.len())] as u32;
    let balance = if one_of(&[0, 1]) == 0 {
        Balance::LeastRequests
    } else {
        Balance::RoundRobin
    };
    let ms = |ms: u32| Duration::from_millis(ms.into());
    let is_limited = one_of(&[0, 1]) == 1;
    let fails: &[u64] = if one_of(&[0, 1]) == 1 { &[0] } else { &[1, 3] };
    let services: Vec<ServicePolicy> = (0..services as u64)
        .map(|number| ServicePolicy {
            hash: number,
            weight: Some(one_of(&[0, 1, 3, 9])).filter(|weight| *weight < 9),
            max_fails: one_of(fails),
            fail_timeout: ms(one_of(&[500, 3_000, 10_000])),
            fail_rate_percent: one_of(&[0, 10, 10, 30]),
            requests_max: if is_limited { one_of(&[0, 1, 3]) } else { 0 },
            fail_on: ServerErrors::from(vec![503; one_of(&[0, 1, 1]) as usize]),
            slow_start: ms(one_of(&[0, 0, 20_000])),
        })
        .collect();
    PoolPolicy {
        services,
        max_fails: one_of(fails),
        fail_timeout: ms(one_of(&[500, 3_000, 10_000])),
        fail_rate_percent: one_of(&[0, 10, 10, 30]),
        eject_max_percent: one_of(&[0, 10, 50, 100, 100]),
        panic_threshold_percent: one_of(&[0, 30, 50, 100]),
        retry_budget_percent: one_of(&[0, 20, 100]),
        parked_max: one_of(&[0, 2, 6, 30]),
        park: ms(one_of(&[0, 1_000, 10_000, 10_000])),
        ..PoolPolicy::new(balance, &RouteLimits::default(), &ProxySettings::default())
    }
}
