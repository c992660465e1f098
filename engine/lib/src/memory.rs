//! Memory of the machine.

/// What a computation may take where the system does not tell what is free.
const BLIND_BUDGET: u64 = 3 << 30;

/// Two thirds of the memory that is free, in bytes: what a computation on the CPU may take unless it is told otherwise.
pub fn default_budget() -> u64 {
    free().map_or(BLIND_BUDGET, |free| free / 3 * 2)
}

fn free() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let value = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    Some(1024 * value.trim().strip_suffix(" kB")?.parse::<u64>().ok()?)
}
