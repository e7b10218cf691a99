//! Enumerations of faults, each with a stable name and a description.

/// Defines an enumeration of rows `Variant, "stable_name", "One sentence.";`, with `ALL`, `name`,
/// `describe` and the sentence as its `Display`.
macro_rules! reasons {
    ($(#[$doc:meta])* $type:ident { $($variant:ident, $name:literal, $describe:literal;)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum $type {
            $(#[doc = $describe] $variant,)+
        }

        impl $type {
            /// All values, in their order.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// Returns the stable name, in snake case.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }

            /// Returns one sentence that describes the fault.
            #[must_use]
            pub const fn describe(self) -> &'static str {
                match self {
                    $(Self::$variant => $describe,)+
                }
            }
        }

        impl core::fmt::Display for $type {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                f.write_str(self.describe())
            }
        }

        impl core::error::Error for $type {}
    };
}

pub(crate) use reasons;
