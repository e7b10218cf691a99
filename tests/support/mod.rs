//! What the integration tests share: packets, a reference model, the bodies of the fuzz targets.

// Each test crate uses its part of this.
#![allow(dead_code)]

//pub(crate) mod fuzz;
//pub(crate) mod model;
//pub(crate) mod ops;
pub(crate) mod packets;
