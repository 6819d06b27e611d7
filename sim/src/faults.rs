//! What may go wrong in one simulation, drawn from its seed before it starts.

use std::fmt;

use tidegate_core::rng::Rng;
use tidegate_core::simulated::Span;

/// How the Docker API of a simulation behaves. Chances are in a thousand.
#[derive(Clone, Debug)]
pub struct DockerFaults {
    /// From a call to its answer.
    pub latency: Span,
    /// Calls that are answered with a server error.
    pub errors: u64,
    /// Calls that hang for 20 s, as across an election (facts §4).
    pub hangs: u64,
    /// Events that end the stream instead of arriving.
    pub gaps: u64,
    /// Answers that are cut short.
    pub garbled: u64,
}

impl DockerFaults {
    /// An engine without faults.
    pub fn none() -> Self {
        DockerFaults {
            latency: Span::ms(1, 5),
            errors: 0,
            hangs: 0,
            gaps: 0,
            garbled: 0,
        }
    }

    /// Whether nothing goes wrong but time.
    pub fn is_well(&self) -> bool {
        self.errors + self.hangs + self.gaps + self.garbled == 0
    }

    /// What a seed draws: most engines are well, some are slow, some err.
    pub fn draw(rng: &mut Rng) -> Self {
        let slow = rng.chance(1, 4);
        DockerFaults {
            latency: if slow { Span::ms(5, 60) } else { Span::ms(1, 8) },
            errors: if rng.chance(1, 3) { rng.between(5, 50) } else { 0 },
            hangs: if rng.chance(1, 4) { rng.between(1, 10) } else { 0 },
            gaps: if rng.chance(1, 4) { rng.between(10, 100) } else { 0 },
            garbled: if rng.chance(1, 6) { rng.between(5, 30) } else { 0 },
        }
    }
}

impl fmt::Display for DockerFaults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Span { min_ms, max_ms } = self.latency;
        write!(
            f,
            "docker {min_ms}..{max_ms} ms, errors {}‰, hangs {}‰, event gaps {}‰, cut short {}‰",
            self.errors, self.hangs, self.gaps, self.garbled
        )
    }
}
