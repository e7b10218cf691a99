//! Location of a frame in the window of a reader.

use std::ops::Range;
use std::time::Duration;

use super::link::LinkType;

/// Frame that a format's reader has found and consumed from the window.
pub(super) struct Located {
    pub(super) time: Duration,
    pub(super) link: LinkType,
    /// Range of the captured bytes for [`Window::kept`](super::window::Window::kept).
    pub(super) data: Range<usize>,
    /// Length on the wire as the file states it, unchecked.
    pub(super) wire_len: u32,
    pub(super) interface: u32,
}
