//! One scan through the chain: read once, masks, reports, pictures, measures; its folder appears
//! whole or not at all.

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::config::Config;
use super::found::Found;
use super::networks::Networks;
use super::quality::{Measures, Quality};
use super::sources::Source;
use crate::error::{Error, Result};
use crate::file;
use crate::picture::{self, Colour, Layer, Window};
use crate::report::{self, Clock, FileDigest};
use crate::step::{Context, FileArgument, FileKind, Step};
use crate::steps::{
    CropPatches, QaMetrics, SegmentAnonymizationArea, SegmentForeground, qa_metrics,
    segment_anonymization_area as area, segment_foreground as foreground,
};
use crate::volume::{self, Canonical, Mask, Shape};

/// The file in a scan's folder that says what it was made from and what was found.
pub(super) const SCAN: &str = "scan.json";
/// The picture that the page shows.
pub(super) const SHEET: &str = "slices.jpg";

/// Quality of that picture as JPEG.
const JPEG_QUALITY: u8 = 60;

/// What a scan's folder was made from, and what was found.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
pub struct ScanReport {
    /// Layout of this file: `prepare.scan/1`.
    pub schema: String,
    /// `prepare`; with `config` below, `--config` takes this file back.
    pub step: String,
    /// Version of voxmask.
    pub version: String,
    /// Everything that was configured but for the paths.
    pub config: Map<String, Value>,
    /// SHA-256 of the weights of the networks.
    pub networks: Vec<String>,
    /// What was read.
    pub inputs: Vec<FileDigest>,
    /// What was written beside this file.
    pub outputs: Vec<FileDigest>,
    /// What was found.
    pub result: Row,
}

/// A scan's line in the cohort's table.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
pub struct Row {
    /// What the scan is known by.
    pub id: String,
    /// Folder of its results, from the cohort's folder.
    pub folder: String,
    /// Where it was made, if the table says so.
    pub site: Option<String>,
    /// Part of the body, if the table says so.
    pub region: Option<String>,
    /// The kind of scan that it was taken for.
    pub modality: String,
    /// Voxels along i, j, k.
    pub shape: Shape,
    /// Distance between voxel centres along i, j, k [mm].
    pub spacing_mm: [f64; 3],
    /// Which way i, j, k run.
    pub orientation: String,
    /// Voxels of the scan.
    pub voxels: usize,
    /// Voxels of the foreground.
    pub foreground_voxels: usize,
    /// Voxels outside the foreground, of all: what a loss over the mask leaves out.
    pub saved_share: f64,
    /// Voxels outside the foreground's bounding box, of all: what cropping saves.
    pub saved_by_cropping_share: f64,
    /// Whether any voxel was found to be altered.
    pub altered: bool,
    /// The network's probability that the scan was altered; null if it gives none.
    pub altered_probability: Option<f64>,
    /// Volume of the anonymization area [ml].
    pub area_ml: f64,
    /// What can be said of the masks without a reference.
    pub measures: Measures,
    /// What stands out.
    pub quality: Quality,
    /// How well the foreground fits its reference, if there is one.
    pub agreement: Option<Agreement>,
    /// What the header says that is taken in a way that may not be meant.
    pub remarks: Vec<String>,
}

/// How well a foreground fits its reference.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
pub struct Agreement {
    /// Sørensen–Dice coefficient.
    pub dice: f64,
    /// 95th percentile of the surface distance [mm]; null without a surface.
    pub hd95_mm: Option<f64>,
    /// Surface Dice at the tolerance; null without a surface.
    pub nsd: Option<f64>,
    /// Volume of the mask [ml].
    pub volume_ml: f64,
    /// Volume of the reference [ml].
    pub reference_volume_ml: f64,
}

/// A scan whose content is known, and where its results go.
pub(super) struct Job<'a> {
    pub config: &'a Config,
    pub context: &'a Context,
    /// Configuration without paths, as it goes into reports.
    pub stated: &'a Map<String, Value>,
    pub source: &'a Source,
    pub id: String,
    pub sha256: String,
    /// Folder of the results, from the cohort's.
    pub place: PathBuf,
    /// Digests of the networks' weights.
    pub networks: Vec<String>,
}

impl Job<'_> {
    fn folder(&self) -> PathBuf {
        self.config.output.join(&self.place)
    }

    fn inputs(&self) -> Result<Vec<FileDigest>> {
        let known = |role: &str, sha256: String| FileDigest {
            role: role.to_owned(),
            name: format!("{}.nii.gz", self.id),
            sha256: Some(sha256),
        };
        let mut inputs = vec![known("image", self.sha256.clone())];
        if let Some(path) = &self.source.reference {
            inputs.push(known("reference", file::sha256(path)?));
        }
        Ok(inputs)
    }

    /// What an earlier run found, if it had the same scan, configuration, networks and version, and
    /// all that it wrote is still there.
    pub fn finished(&self) -> Result<Option<ScanReport>> {
        let folder = self.folder();
        let Ok(text) = std::fs::read(folder.join(SCAN)) else {
            return Ok(None);
        };
        let Ok(found) = serde_json::from_slice::<ScanReport>(&text) else {
            return Ok(None);
        };
        let same = found.version == env!("CARGO_PKG_VERSION")
            && found.config == *self.stated
            && found.networks == self.networks
            && found.inputs == self.inputs()?
            && found.result.site == self.source.site
            && found.result.region == self.source.region;
        let intact = |output: &FileDigest| {
            let path = folder.join(&output.name);
            let digest = if path.is_dir() {
                file::folder::sha256(&path)
            } else {
                file::sha256(&path)
            };
            digest.ok() == output.sha256
        };
        Ok((same && found.outputs.iter().all(intact)).then_some(found))
    }

    /// Reads, computes and writes.
    ///
    /// # Errors
    /// Those of the steps.
    pub fn work(&self, open: volume::OpenVolume, networks: &Networks) -> Result<ScanReport> {
        let remarks = open.oddities().into_iter().map(str::to_owned).collect();
        let image = open.image(self.config.frame)?;
        let scan = Canonical::of(image);
        let found = Found::of(&scan, networks, self.config, self.context)?;
        let folder = self.folder();
        if let Some(above) = folder.parent() {
            std::fs::create_dir_all(above).map_err(|e| Error::unwritable(above, e))?;
        }
        let mut written = None;
        file::folder::write_folder(&folder, true, is_ours, |draft| {
            written = Some(self.write(scan, found, remarks, draft)?);
            Ok(())
        })?;
        written.ok_or_else(|| Error::Bug("a scan's folder was not filled".to_owned()))
    }

    fn write(
        &self,
        scan: Canonical,
        found: Found,
        remarks: Vec<String>,
        draft: &Path,
    ) -> Result<ScanReport> {
        let body = self.write_foreground(&scan, &found, draft)?;
        let altered = self.write_area(&scan, &found, draft)?;
        self.write_sheet(&scan, &found, draft)?;
        let mut measures = found.measures(&scan);
        let (judged, agreement) = self.write_judgement(scan, &found, draft)?;
        measures.complete(&judged);
        self.write_patches(draft)?;
        let quality = Quality::of(&measures, self.source.region.as_deref(), self.config);
        let row = Row {
            id: self.id.clone(),
            folder: self.place.display().to_string(),
            site: self.source.site.clone(),
            region: self.source.region.clone(),
            modality: found.kind_of_scan(measures.values[0]).to_owned(),
            shape: body.input.shape,
            spacing_mm: body.input.spacing.mm(),
            orientation: body.input.orientation.to_string(),
            voxels: body.input.shape.iter().product(),
            foreground_voxels: body.foreground.voxels,
            saved_share: judged.mask.saved_share,
            saved_by_cropping_share: judged.mask.saved_by_cropping_share,
            altered: altered.altered,
            altered_probability: altered.altered_probability,
            area_ml: altered.anonymization_area.volume_ml,
            measures,
            quality,
            agreement,
            remarks,
        };
        self.write_report(row, draft)
    }

    /// The report that the executable for this step alone would have written.
    fn write_step<S: Step>(
        &self,
        config: &S::Config,
        result: S::Report,
        run: report::Run,
        path: &Path,
    ) -> Result<()> {
        let digest = |file: &FileArgument, path: &Path| {
            let mut digest = if path == self.source.path {
                FileDigest {
                    role: file.role.to_owned(),
                    name: format!("{}.nii.gz", self.id),
                    sha256: Some(self.sha256.clone()),
                }
            } else {
                report::digest(file, path)?
            };
            if file.kind == FileKind::InputFolder || file.role == "reference" {
                file.role.clone_into(&mut digest.name);
            }
            Ok(digest)
        };
        let envelope = report::envelope::<S>(config, result, run, digest)?;
        write_json(path, &envelope)
    }

    fn write_foreground(
        &self,
        scan: &Canonical,
        found: &Found,
        draft: &Path,
    ) -> Result<foreground::Report> {
        let config = foreground::Config {
            input: self.source.path.clone(),
            output: draft.join("foreground.nii.gz"),
            model: self.config.foreground_model.clone(),
            label: self.config.foreground_label.clone(),
            mirroring: self.config.foreground_choice().mirroring,
            modality: self.config.modality,
            frame: self.config.frame,
            ..foreground::Config::default()
        };
        self.write_mask(scan, &found.body.mask, &config.output)?;
        let report = found.body.report.clone();
        let path = draft.join("foreground.json");
        self.write_step::<SegmentForeground>(
            &config,
            report.clone(),
            found.body_run.clone(),
            &path,
        )?;
        Ok(report)
    }

    fn write_area(&self, scan: &Canonical, found: &Found, draft: &Path) -> Result<area::Report> {
        let config = area::Config {
            input: self.source.path.clone(),
            output: draft.join("anonymization_area.nii.gz"),
            // A label is found without the foreground.
            foreground: found
                .altered
                .prediction()
                .map(|_| draft.join("foreground.nii.gz")),
            model: self.config.area_model.clone(),
            label: self.config.area_label.clone(),
            mirroring: self.config.area_choice().mirroring,
            modality: self.config.modality,
            frame: self.config.frame,
            picture: Some(draft.join("picture.png")),
            ..area::Config::default()
        };
        let (body, altered) = (&found.body.mask, &found.altered);
        area::write_beside(scan, Some(body), altered, &config, self.context)?;
        self.write_mask(scan, &altered.mask, &config.output)?;
        let report = altered.report.clone();
        let path = draft.join("anonymization_area.json");
        let run = found.altered_run.clone();
        self.write_step::<SegmentAnonymizationArea>(&config, report.clone(), run, &path)?;
        Ok(report)
    }

    /// Writes a copy of a mask that is needed again.
    fn write_mask(&self, scan: &Canonical, mask: &Mask, path: &Path) -> Result<()> {
        volume::write_mask(path, &scan.restore(mask.clone()), self.context.overwrite)
    }

    fn write_sheet(&self, scan: &Canonical, found: &Found, draft: &Path) -> Result<()> {
        let layer = |mask, colour| Layer { mask, colour };
        let layers = [
            layer(&found.body.mask, Colour::FOREGROUND),
            layer(&found.altered.mask, Colour::ANONYMIZATION_AREA),
        ];
        let sheet = picture::sheet(&scan.image, &layers, Window::for_image(&scan.image));
        let bytes = sheet.jpeg(JPEG_QUALITY)?;
        file::write_whole(&draft.join(SHEET), false, |writer| writer.write_all(&bytes))
    }

    /// What `voxmask-qa-metrics` says of the foreground, on the scan's own grid.
    fn write_judgement(
        &self,
        scan: Canonical,
        found: &Found,
        draft: &Path,
    ) -> Result<(qa_metrics::Report, Option<Agreement>)> {
        let clock = Clock::start();
        let config = qa_metrics::Config {
            input: draft.join("foreground.nii.gz"),
            image: Some(self.source.path.clone()),
            reference: self.source.reference.clone(),
            tolerance_mm: self.config.tolerance_mm,
            ..qa_metrics::Config::default()
        };
        let mask = scan.restore(found.body.mask.clone());
        let reference = self.reference(&mask)?;
        let image = scan.into_stored();
        let report = qa_metrics::measure_mask(mask, &image, reference, &config);
        let agreement = report.comparison.as_ref().map(Agreement::of);
        let path = draft.join("quality.json");
        let run = clock.stop(self.context);
        self.write_step::<QaMetrics>(&config, report.clone(), run, &path)?;
        Ok((report, agreement))
    }

    fn reference(&self, mask: &Mask) -> Result<Option<Mask>> {
        let Some(path) = &self.source.reference else {
            return Ok(None);
        };
        let reference = volume::read_mask(path)?;
        if !reference.geometry.same_grid(&mask.geometry) {
            let why = "the reference is not on the grid of the scan";
            return Err(Error::unusable(path, why));
        }
        Ok(Some(reference))
    }

    fn write_patches(&self, draft: &Path) -> Result<()> {
        let Some(settings) = &self.config.patches else {
            return Ok(());
        };
        let clock = Clock::start();
        let mut config = settings.0.clone();
        config.input.clone_from(&self.source.path);
        config.output = draft.join("patches");
        config.foreground = Some(draft.join("foreground.nii.gz"));
        config.anonymization_area = Some(draft.join("anonymization_area.nii.gz"));
        let report = CropPatches::run(&config, self.context)?;
        let path = draft.join("patches.json");
        self.write_step::<CropPatches>(&config, report, clock.stop(self.context), &path)
    }

    fn write_report(&self, row: Row, draft: &Path) -> Result<ScanReport> {
        let mut outputs = Vec::new();
        for path in file::folder::entries(draft)? {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let sha256 = match path.is_dir() {
                true => file::folder::sha256(&path)?,
                false => file::sha256(&path)?,
            };
            outputs.push(FileDigest {
                role: role(&name).to_owned(),
                name: name.into_owned(),
                sha256: Some(sha256),
            });
        }
        let report = ScanReport {
            schema: "prepare.scan/1".to_owned(),
            step: "prepare".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            config: self.stated.clone(),
            networks: self.networks.clone(),
            inputs: self.inputs()?,
            // Reports of steps hold the time that they took: no digest of theirs is the same twice.
            outputs: outputs.into_iter().filter(|o| o.role != "report").collect(),
            result: row,
        };
        write_json(&draft.join(SCAN), &report)?;
        Ok(report)
    }
}

impl Agreement {
    fn of(comparison: &qa_metrics::Comparison) -> Self {
        let scores = &comparison.overall;
        Self {
            dice: scores.dice,
            hd95_mm: scores.hd95_mm.value(),
            nsd: scores.nsd.value(),
            volume_ml: scores.volume_ml,
            reference_volume_ml: scores.reference_volume_ml,
        }
    }
}

/// True for the names of what is in a scan's folder.
fn is_ours(name: &str) -> bool {
    !role(name).is_empty()
}

fn role(name: &str) -> &'static str {
    match name {
        "foreground.nii.gz" => "foreground_mask",
        "anonymization_area.nii.gz" => "anonymization_area",
        "picture.png" => "picture",
        SHEET => "slices",
        "patches" => "patches",
        "foreground.json" | "anonymization_area.json" | "quality.json" | "patches.json" | SCAN => {
            "report"
        }
        _ => "",
    }
}

fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value).map_err(|e| Error::Bug(e.to_string()))?;
    file::write_whole(path, false, |writer| writeln!(writer, "{text}"))
}
