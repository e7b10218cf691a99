//! The parts around the packet path, driven together.
