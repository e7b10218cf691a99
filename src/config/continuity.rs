//! `[continuity]`: sessions that go on in another engine.

crate::config_section! {
    /// `[continuity]`: sessions that a store outside the engine keeps, so that another engine can
    /// resume them.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct ContinuityConfig = "continuity" {
        /// Whether sessions are stored: each session remembers what of it is in the store, which
        /// takes 16 bytes. The caller moves records between the engine and the store.
        enabled: bool {
            default: false, "there is no store without its caller";
            restart: true;
        }
    }
}

crate::config_table_values!(ContinuityConfig);
