//! Providers of load balancers, and the contents of their metadata.

/// The provider of the load balancer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Provider {
    /// AWS Gateway Load Balancer.
    #[default]
    Gwlb,
    /// Google Cloud Network Security Integration. Its network id distinguishes address spaces, and
    /// is the endpoint here. There is no flow cookie.
    Gcp,
    /// Tencent Cloud Gateway Load Balancer.
    Tencent,
}

impl Provider {
    /// All providers.
    pub const ALL: [Self; 3] = [Self::Gwlb, Self::Gcp, Self::Tencent];

    /// Returns the name in the configuration file.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Gwlb => "gwlb",
            Self::Gcp => "gcp",
            Self::Tencent => "tencent",
        }
    }

    /// Returns the class of the provider's options.
    #[must_use]
    pub const fn class(self) -> u16 {
        match self {
            Self::Gwlb => 0x0108,
            Self::Gcp => 0x0132,
            Self::Tencent => 0x0167,
        }
    }

    /// Returns the mask of the bits of the flow cookie that identify a flow; 0 if there are
    /// none.
    #[must_use]
    pub const fn cookie_mask(self) -> u32 {
        match self {
            Self::Gwlb => u32::MAX,
            Self::Gcp => 0,
            Self::Tencent => u32::MAX >> 3,
        }
    }

    /// Returns the metadata that a header must have by default.
    #[must_use]
    pub const fn required(self) -> &'static [MetadataField] {
        match self {
            Self::Gwlb | Self::Tencent => &[MetadataField::Endpoint, MetadataField::Cookie],
            Self::Gcp => &[MetadataField::Endpoint],
        }
    }
}

/// A part of the metadata.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MetadataField {
    /// Option type 1.
    Endpoint,
    /// Option type 2.
    Attachment,
    /// Option type 3, for providers that have a flow cookie there.
    Cookie,
}

impl MetadataField {
    /// Returns the name in the configuration file.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Endpoint => "endpoint",
            Self::Attachment => "attachment",
            Self::Cookie => "cookie",
        }
    }
}

/// The identifier of an endpoint, which distinguishes address spaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EndpointId(pub u64);

impl core::fmt::Display for EndpointId {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{:#018x}", self.0)
    }
}
