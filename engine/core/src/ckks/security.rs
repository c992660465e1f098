//! How much modulus a ring dimension allows at a security level.

use serde::{Deserialize, Serialize};

/// Classical security against the best known lattice attacks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub enum SecurityLevel {
    /// 128 bits.
    #[default]
    Bits128,
    /// 192 bits.
    Bits192,
    /// 256 bits.
    Bits256,
}

/// `log2(Q P)` allowed for N = 2^10 .. 2^17 with uniform ternary secrets, classical attacks: Bossuat et al., "Security
/// Guidelines for Implementing Homomorphic Encryption" (2024), Table 5.2. Zero: nothing is allowed.
const MAX_LOG_QP: [(SecurityLevel, [u32; 8]); 3] = [
    (SecurityLevel::Bits128, [26, 53, 106, 214, 430, 868, 1747, 3523]),
    (SecurityLevel::Bits192, [0, 36, 73, 147, 297, 597, 1199, 2411]),
    (SecurityLevel::Bits256, [0, 27, 56, 114, 230, 462, 929, 1866]),
];

impl SecurityLevel {
    /// The levels, weakest first.
    pub const ALL: [SecurityLevel; 3] = [SecurityLevel::Bits128, SecurityLevel::Bits192, SecurityLevel::Bits256];

    /// 128, 192 or 256.
    pub fn bits(self) -> u32 {
        match self {
            SecurityLevel::Bits128 => 128,
            SecurityLevel::Bits192 => 192,
            SecurityLevel::Bits256 => 256,
        }
    }

    /// Largest `log2(Q P)` for ring dimension `n`; 0 where the table allows none.
    pub fn max_log_qp(self, n: usize) -> u32 {
        let row = MAX_LOG_QP.iter().find(|(level, _)| *level == self).map(|(_, row)| row);
        let column = n.is_power_of_two().then(|| n.trailing_zeros().checked_sub(10)).flatten();
        row.zip(column).and_then(|(row, column)| row.get(column as usize)).copied().unwrap_or(0)
    }

    /// The strongest level at which `log_qp` bits are allowed in dimension `n`, or `None` below 128 bits.
    pub fn of(n: usize, log_qp: f64) -> Option<SecurityLevel> {
        Self::ALL.into_iter().rev().find(|level| log_qp <= f64::from(level.max_log_qp(n)))
    }
}

impl From<SecurityLevel> for u32 {
    fn from(level: SecurityLevel) -> u32 {
        level.bits()
    }
}

impl TryFrom<u32> for SecurityLevel {
    type Error = String;

    fn try_from(bits: u32) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|level| level.bits() == bits);
        found.ok_or_else(|| format!("security level {bits} is not allowed: 128, 192 or 256"))
    }
}
