//! The crate's one error: a stable code, a sentence that says what to do, and the cause.

use std::error::Error as StdError;
use std::fmt;

/// A stable code that a program can match on; JavaScript sees the same names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    /// WebGPU was asked for and there is no adapter.
    NoWebGpu,
    /// The GPU device was lost in the middle of the work.
    DeviceLost,
    /// A file of a bundle is missing, or its hash or layout is not what the manifest says.
    ModelIntegrity,
    /// The architecture, tensor type or feature is not one that this build runs.
    ModelUnsupported,
    /// A file or address could not be read.
    NotReachable,
    /// The browser or the disk has no room left.
    QuotaExceeded,
    /// The store is there but cannot be opened: another tab holds it back, or access is denied.
    StoreBlocked,
    /// What the store holds is not a journal, or was written by a newer version.
    StoreCorrupt,
    /// Somebody else appended first, three times over, or an import diverges.
    StoreConflict,
    /// The store failed for another reason.
    StoreFailed,
    /// An argument is missing or malformed.
    InvalidArgument,
    /// No memory has this id in this scope.
    NotFound,
    /// The prompt does not fit into the model's context.
    ContextOverflow,
    /// A remote model answered with what is not the requested form.
    MalformedOutput,
    /// The caller cancelled.
    Aborted,
    /// A defect of this crate.
    Internal,
}

impl ErrorCode {
    /// The name that JavaScript and `--json` show.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoWebGpu => "NO_WEBGPU",
            Self::DeviceLost => "DEVICE_LOST",
            Self::ModelIntegrity => "MODEL_INTEGRITY",
            Self::ModelUnsupported => "MODEL_UNSUPPORTED",
            Self::NotReachable => "NOT_REACHABLE",
            Self::QuotaExceeded => "QUOTA_EXCEEDED",
            Self::StoreBlocked => "STORE_BLOCKED",
            Self::StoreCorrupt => "STORE_CORRUPT",
            Self::StoreConflict => "STORE_CONFLICT",
            Self::StoreFailed => "STORE_FAILED",
            Self::InvalidArgument => "INVALID_ARGUMENT",
            Self::NotFound => "NOT_FOUND",
            Self::ContextOverflow => "CONTEXT_OVERFLOW",
            Self::MalformedOutput => "MALFORMED_OUTPUT",
            Self::Aborted => "ABORTED",
            Self::Internal => "INTERNAL",
        }
    }
}

/// Why an operation failed. Nothing was changed unless the message says so.
#[derive(Debug)]
pub struct Error {
    code: ErrorCode,
    message: String,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

/// The crate's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error with a code and a sentence.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), source: None }
    }

    /// Adds what caused it.
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// [`ErrorCode::InvalidArgument`].
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::InvalidArgument, message)
    }

    /// [`ErrorCode::Internal`].
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::Internal, message)
    }

    /// [`ErrorCode::Aborted`].
    pub fn aborted() -> Self {
        Self::new(ErrorCode::Aborted, "the operation was cancelled; nothing was changed")
    }

    /// The stable code.
    pub fn code(&self) -> ErrorCode {
        self.code
    }

    /// The sentence, without the code.
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code.as_str(), self.message)?;
        if let Some(source) = &self.source {
            write!(f, " ({source})")?;
        }
        Ok(())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}
