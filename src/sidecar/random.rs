//! Random numbers for names; nothing secret is made of them.

/// From the kernel. Falls back to the clock, which is enough to tell two starts apart.
pub fn number() -> u64 {
    let mut bytes = [0_u8; 8];
    let provider = crate::family::go_plugin::tls::provider();
    match provider.secure_random.fill(&mut bytes) {
        Ok(()) => u64::from_ne_bytes(bytes),
        Err(_) => std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |now| {
                u64::try_from(now.as_nanos() & u128::from(u64::MAX)).unwrap_or(0)
            }),
    }
}

/// As [`number`], twice as wide.
pub fn wide() -> u128 {
    (u128::from(number()) << 64) | u128::from(number())
}
