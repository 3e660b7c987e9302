//! The steps, one file each, one executable each.

mod crop_patches;
mod qa_metrics;
mod resample;
mod segment_anonymization_area;
mod segment_foreground;

pub use crop_patches::CropPatches;
pub use qa_metrics::QaMetrics;
pub use resample::Resample;
pub use segment_anonymization_area::SegmentAnonymizationArea;
pub use segment_foreground::SegmentForeground;
