//! Why there is no plan.

use crate::{
    class::{RunnerClass, Size},
    codes,
    lock::ArtifactKind,
    pipeline::Partitions,
    run::Window,
    text::{DatasetName, Name, RelativePath},
};

/// Why documents and facts mean no plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    /// A stage is named that there is not.
    #[error("the pipeline has no stage `{name}`")]
    UnknownStage {
        /// The name.
        name: String,
        /// Those that there are.
        stages: Vec<String>,
    },
    /// The catalog does not say what the size is worth.
    #[error("the catalog has no size {size} of {class}")]
    NoSize {
        /// The size.
        size: Size,
        /// The class.
        class: RunnerClass,
    },
    /// The environment has no backend for the class.
    #[error("environment `{environment}` serves no {class}")]
    NotServed {
        /// The environment.
        environment: Name,
        /// The class.
        class: RunnerClass,
    },
    /// The stage's partitions are those of the window, and there is none.
    #[error("stage `{stage}` has the partitions of the window, and the run has none")]
    NoWindow {
        /// The stage.
        stage: Name,
    },
    /// No partition of the stage overlaps the window.
    #[error("stage `{stage}` has no partition between {} and {}", window.start, window.end)]
    OutsideWindow {
        /// The stage.
        stage: Name,
        /// The window.
        window: Window,
    },
    /// The window has more partitions than a stage may have.
    #[error("the window has more than {} partitions", Partitions::MAX)]
    WindowTooLong,
    /// The lock lacks something that the manifest names.
    #[error("the lock file does not pin {} `{name}`", kind.as_str())]
    NotPinned {
        /// What it is.
        kind: ArtifactKind,
        /// What the manifest calls it.
        name: String,
    },
    /// Neither the manifest nor the image says what runs.
    #[error("image `{image}` names no program to run")]
    NoProgram {
        /// What the manifest calls the image.
        image: String,
    },
    /// The facts do not tell of an image.
    #[error("nothing is known of image `{image}`")]
    UnknownImage {
        /// What the manifest calls it.
        image: String,
    },
    /// The facts do not tell of a file.
    #[error("nothing is known of the file {path}")]
    UnknownFile {
        /// The file.
        path: RelativePath,
    },
    /// Nobody has looked at a dataset of another pipeline, or it is not there.
    #[error("nothing is known of dataset `{dataset}` of pipeline `{pipeline}`")]
    UnknownDataset {
        /// The dataset.
        dataset: DatasetName,
        /// The pipeline whose it is.
        pipeline: Name,
    },
    /// The stage is started by something that happens while a server runs.
    #[error("stage `{stage}` is started by an event that only a server receives")]
    ServersEvent {
        /// The stage.
        stage: Name,
    },
}

impl CompileError {
    /// The code, whose page says more. A stage that was mistyped has none.
    pub fn code(&self) -> Option<&'static str> {
        Some(match self {
            Self::UnknownStage { .. } => return None,
            Self::NoSize { .. } => codes::INVALID_CATALOG.id,
            Self::NotServed { .. } => codes::BACKEND_MISSING.id,
            Self::NoWindow { .. } | Self::OutsideWindow { .. } | Self::WindowTooLong => {
                codes::INVALID_PARTITIONS.id
            }
            Self::NotPinned { .. } => codes::LOCK_INCOMPLETE.id,
            Self::NoProgram { .. } | Self::UnknownImage { .. } => codes::ARTIFACT_UNUSABLE.id,
            Self::UnknownDataset { .. } => codes::IMPORT_MISSING.id,
            Self::UnknownFile { .. } => codes::FILE_CHANGED.id,
            Self::ServersEvent { .. } => codes::INVALID_EVENT.id,
        })
    }

    /// What to do, as a whole sentence, where that is not said by the code's page alone.
    pub fn remedy(&self) -> Option<String> {
        let remedy = match self {
            Self::UnknownStage { stages, .. } => {
                return Some(format!("Its stages are {}.", stages.join(", ")));
            }
            Self::NoWindow { .. } => {
                "Say with `--window` what the run is for, as with `--window 2024`."
            }
            Self::OutsideWindow { .. } => {
                "Choose a window that overlaps its partitions, or another stage with `--stage`."
            }
            Self::WindowTooLong => "Choose a shorter window.",
            Self::NoProgram { .. } => "Give the stage a `command`.",
            Self::ServersEvent { .. } => {
                "`barecount run` starts stages by files, timers, and the end of other stages."
            }
            Self::NoSize { .. }
            | Self::NotServed { .. }
            | Self::NotPinned { .. }
            | Self::UnknownImage { .. }
            | Self::UnknownDataset { .. }
            | Self::UnknownFile { .. } => return None,
        };
        Some(remedy.to_owned())
    }
}
