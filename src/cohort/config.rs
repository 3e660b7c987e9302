//! What to do with a cohort.

use std::borrow::Cow;
use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::network::Modality;
use crate::network::mask::Choice;
use crate::network::windows::Mirroring;
use crate::step::Step;
use crate::steps::{CropPatches, crop_patches};

/// Find foreground and anonymization area of many scans.
#[derive(Clone, Debug, Args, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["output"]))]
pub struct Config {
    /// Folder of scans, or a BIDS tree; `.nii` and `.nii.gz` in it and below are taken.
    #[arg(long, value_name = "FOLDER")]
    pub input: Option<PathBuf>,
    /// Which files below the input folder are scans, such as `**/anat/*_T1w.nii.gz`.
    #[arg(long, value_name = "GLOB")]
    pub pattern: String,
    /// CSV with a column `scan` (paths from the table's folder) and, if there are, `subject`, `site`, `region` and `reference`; instead of an input folder.
    #[arg(long, value_name = "FILE.csv")]
    pub table: Option<PathBuf>,
    /// Folder of reference foreground masks, named as the scans are below the input folder.
    #[arg(long, value_name = "FOLDER")]
    pub references: Option<PathBuf>,
    /// Folder to make and fill.
    #[arg(long, value_name = "FOLDER")]
    pub output: PathBuf,
    /// Write which path belongs to which name here; keep it where names of patients may be.
    #[arg(long, value_name = "FILE.csv")]
    pub key: Option<PathBuf>,
    /// What a scan is called in outputs: the first digits of its digest, or its subject's label.
    #[arg(long, value_enum)]
    pub naming: Naming,
    /// Folder of another network for the foreground: `card.json` and its weights.
    #[arg(long, value_name = "DIR")]
    pub foreground_model: Option<PathBuf>,
    /// Folder of another network for the anonymization area: `card.json` and its weights.
    #[arg(long, value_name = "DIR")]
    pub area_model: Option<PathBuf>,
    /// Label of the foreground, of a network that sees scans through windows (such as nnU-Net's).
    #[arg(long, value_name = "NAME")]
    pub foreground_label: Option<String>,
    /// Label of the anonymization area, of such a network.
    #[arg(long, value_name = "NAME")]
    pub area_label: Option<String>,
    /// Whether such networks are also shown each scan mirrored: up to 8 times the work.
    #[arg(long, value_enum, value_name = "WHETHER", num_args = 0..=1, default_missing_value = "on")]
    pub mirroring: Mirroring,
    /// Kind of scans; `auto` takes values below −200 for CT.
    #[arg(long, value_enum, value_name = "KIND")]
    pub modality: Modality,
    /// Frame of 4-D volumes to use, from 0.
    #[arg(long, value_name = "N")]
    pub frame: Option<usize>,
    /// Cut patches too, with this configuration of voxmask-crop-patches as JSON; `{}` takes its defaults.
    #[arg(long, value_name = "JSON")]
    pub patches: Option<PatchSettings>,
    /// Show the foreground's network each scan mirrored along three axes, and compare; takes longer.
    #[arg(long, value_enum)]
    pub self_check: Switch,
    /// Whether a flag that asks for a review ends with exit code 1.
    #[arg(long, value_enum)]
    pub strict: Switch,
    /// Voxels that a training run gets through in a second; turns voxels saved into hours.
    #[arg(long, value_name = "N")]
    pub training_voxels_per_s: f64,
    /// Distance up to which surfaces agree in the surface Dice `nsd` [mm].
    #[arg(long, value_name = "MM")]
    pub tolerance_mm: f64,
    /// Flag `small-foreground`: share of the scan that the foreground must reach.
    #[arg(long, value_name = "SHARE")]
    pub min_foreground_share: f64,
    /// Flag `many-pieces`: pieces that the foreground may have.
    #[arg(long, value_name = "N")]
    pub max_pieces: f64,
    /// Flag `holes`: volume of holes that the foreground may have [ml].
    #[arg(long, value_name = "ML")]
    pub max_holes_ml: f64,
    /// Flag `volume`: largest volume of the foreground, where the table names no region [ml].
    #[arg(long, value_name = "ML")]
    pub max_volume_ml: f64,
    /// Flag `blurred-edge`: mean step in intensity at the foreground's edge, in units of the contrast.
    #[arg(long, value_name = "SHARE")]
    pub min_edge_sharpness: f64,
    /// Flag `unsure-edge`: mean entropy of the network at the foreground's edge [bit].
    #[arg(long, value_name = "BITS")]
    pub max_edge_entropy: f64,
    /// Flag `unsure-inside`: doubtful cells away from the foreground's edge, per cell of the edge.
    #[arg(long, value_name = "SHARE")]
    pub max_doubtful_cells: f64,
    /// Flag `network-overruled`: Dice of the foreground with what the network alone would have drawn.
    #[arg(long, value_name = "DICE")]
    pub min_network_agreement: f64,
    /// Flag `unsteady`: Dice of the network's mask with those of mirrored scans (`--self-check`).
    #[arg(long, value_name = "DICE")]
    pub min_self_agreement: f64,
    /// Flag `altered-or-not`: certainty, 0 to 1, that a scan was altered or was not.
    #[arg(long, value_name = "SHARE")]
    pub min_altered_certainty: f64,
    /// Flag `unsure-area`: mean entropy of the network at the anonymization area's edge [bit].
    #[arg(long, value_name = "BITS")]
    pub max_area_entropy: f64,
    /// Note `cut-out`: share of the volume's sides that is body, from which a scan looks cut out of one.
    #[arg(long, value_name = "SHARE")]
    pub cut_out_share: f64,
    /// Note `padding`: share of the scan that holds one value, from which it counts as padded.
    #[arg(long, value_name = "SHARE")]
    pub padding_share: f64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            input: None,
            pattern: "**/*.nii*".to_owned(),
            table: None,
            references: None,
            output: PathBuf::new(),
            key: None,
            naming: Naming::Digest,
            foreground_model: None,
            area_model: None,
            foreground_label: None,
            area_label: None,
            mirroring: Mirroring::Off,
            modality: Modality::Auto,
            frame: None,
            patches: None,
            self_check: Switch::Off,
            strict: Switch::Off,
            training_voxels_per_s: 1e7,
            tolerance_mm: 2.0,
            min_foreground_share: 0.03,
            max_pieces: 6.0,
            max_holes_ml: 1.0,
            max_volume_ml: 250_000.0,
            min_edge_sharpness: 0.1,
            max_edge_entropy: 0.86,
            max_doubtful_cells: 1.9,
            min_network_agreement: 0.978,
            min_self_agreement: 0.9,
            min_altered_certainty: 0.1,
            max_area_entropy: 0.998,
            cut_out_share: 0.95,
            padding_share: 0.05,
        }
    }
}

impl Config {
    /// The network for the foreground.
    pub(super) fn foreground_choice(&self) -> Choice {
        self.choice(&self.foreground_model, &self.foreground_label)
    }

    /// The network for the anonymization area.
    pub(super) fn area_choice(&self) -> Choice {
        self.choice(&self.area_model, &self.area_label)
    }

    /// One label that is named says which network mirroring is for.
    fn choice(&self, folder: &Option<PathBuf>, label: &Option<String>) -> Choice {
        Choice {
            folder: folder.clone(),
            label: label.clone(),
            mirroring: match label {
                Some(_) => self.mirroring,
                None => Mirroring::Off,
            },
        }
    }

    /// Checks what can be checked without opening a file.
    pub(super) fn validate(&self) -> Result<()> {
        let wrong = |why: &str| Err(Error::Config(why.to_owned()));
        match (&self.input, &self.table) {
            (None, None) => return wrong("--input is missing (or --table)"),
            (Some(_), Some(_)) => return wrong("--input and --table cannot be given both"),
            (None, Some(_)) if self.references.is_some() => {
                return wrong("--references goes with --input; a table has a column reference");
            }
            _ => {}
        }
        let labels = [&self.foreground_label, &self.area_label];
        if self.mirroring == Mirroring::On && labels.iter().all(|label| label.is_none()) {
            return wrong("--mirroring goes with --foreground-label or --area-label");
        }
        if self.self_check == Switch::On && self.foreground_label.is_some() {
            return wrong("--self-check goes with a network on a coarse grid, not with a label");
        }
        if let Err(error) = glob::Pattern::new(&self.pattern) {
            return Err(Error::Config(format!("--pattern: {error}")));
        }
        if self.training_voxels_per_s.is_nan() || self.training_voxels_per_s <= 0.0 {
            return wrong("--training-voxels-per-s must be above 0");
        }
        if !(self.tolerance_mm.is_finite() && self.tolerance_mm >= 0.0) {
            return wrong("--tolerance-mm must be a number from 0");
        }
        let patches = self.patches.as_ref().map(|p| CropPatches::validate(&p.0));
        patches.unwrap_or(Ok(()))
    }
}

/// What a scan is called in outputs.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Deserialize, Serialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Naming {
    /// `scan-` and the first 12 digits of the file's SHA-256; equal files are one scan.
    Digest,
    /// The labels `sub-` and `ses-` and the name of a file in a BIDS tree, or the table's subject.
    Subject,
}

/// On or off.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Deserialize, Serialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs)]
pub enum Switch {
    On,
    Off,
}

/// A configuration of `voxmask-crop-patches` without its files.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(try_from = "crop_patches::Config", into = "serde_json::Value")]
pub struct PatchSettings(pub crop_patches::Config);

impl JsonSchema for PatchSettings {
    fn schema_name() -> Cow<'static, str> {
        "PatchSettings".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut schema = crop_patches::Config::json_schema(generator);
        schema.remove("required");
        let properties = schema.get_mut("properties");
        if let Some(properties) = properties.and_then(serde_json::Value::as_object_mut) {
            for file in CropPatches::files(&crop_patches::Config::default()) {
                properties.remove(file.key);
            }
        }
        schema
    }
}

impl TryFrom<crop_patches::Config> for PatchSettings {
    type Error = String;

    fn try_from(config: crop_patches::Config) -> std::result::Result<Self, String> {
        let set = CropPatches::files(&config).into_iter();
        match set.into_iter().find(|file| file.path.is_some()) {
            None => Ok(Self(config)),
            Some(file) => Err(format!("patches: {} is set for each scan here", file.key)),
        }
    }
}

impl From<PatchSettings> for serde_json::Value {
    fn from(settings: PatchSettings) -> Self {
        let without_paths = crate::report::without_paths::<CropPatches>(&settings.0);
        without_paths.map_or(Self::Null, Self::Object)
    }
}

impl FromStr for PatchSettings {
    type Err = String;

    /// Reads JSON.
    fn from_str(text: &str) -> std::result::Result<Self, String> {
        serde_json::from_str(text).map_err(|e| e.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patch_settings_name_no_file_and_come_back_as_they_are() {
        let settings: PatchSettings = r#"{"patch_shape": [8, 9, 10]}"#.parse().unwrap();
        let value = serde_json::to_value(&settings).unwrap();
        assert_eq!(value["patch_shape"], serde_json::json!([8, 9, 10]));
        assert_eq!(value.get("output"), None);
        let again: PatchSettings = serde_json::from_value(value.clone()).unwrap();
        assert_eq!(serde_json::to_value(again).unwrap(), value);
        let refused = r#"{"output": "/data/x"}"#.parse::<PatchSettings>();
        assert!(refused.unwrap_err().contains("output"));
        assert!(r#"{"no_such_key": 1}"#.parse::<PatchSettings>().is_err());
    }

    #[test]
    fn an_input_folder_or_a_table_but_not_both() {
        let folder = || Some(PathBuf::from("x"));
        let config = |input, table| Config {
            input,
            table,
            ..Config::default()
        };
        assert!(config(folder(), None).validate().is_ok());
        assert!(config(None, folder()).validate().is_ok());
        assert_eq!(config(None, None).validate().unwrap_err().exit_code(), 2);
        let both = config(folder(), folder()).validate();
        assert_eq!(both.unwrap_err().exit_code(), 2);
    }
}
