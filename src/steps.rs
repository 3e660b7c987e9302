//! The steps, one file each, one executable each.

mod collect;
pub mod crop_patches;
pub mod qa_metrics;
mod resample;
mod segment;
pub mod segment_anonymization_area;
pub mod segment_foreground;
mod through_windows;

pub use collect::Collect;
pub use crop_patches::CropPatches;
pub use qa_metrics::QaMetrics;
pub use resample::Resample;
pub use segment::Segment;
pub use segment_anonymization_area::SegmentAnonymizationArea;
pub use segment_foreground::SegmentForeground;
