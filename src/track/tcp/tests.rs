//! TCP tracking, row by row and story by story.
