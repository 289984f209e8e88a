//! What the engine is told about its surroundings: what it may do, what is ignored, and how patient it is.

use ferry_protocol::RelPath;

/// Which paths are ignored. A pure function of path and kind while it is in force.
pub trait Filter: Send {
    /// Whether this path is ignored here.
    fn is_ignored(&self, path: &RelPath, is_dir: bool) -> bool;
}

/// Nothing is ignored but Ferry's own directory, which no rules can take back.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoFilter;

impl Filter for NoFilter {
    fn is_ignored(&self, path: &RelPath, _: bool) -> bool {
        path.names().first().is_some_and(ferry_protocol::Name::is_bookkeeping)
    }
}

/// What the device may do here, and how patient it is. Times in milliseconds.
#[derive(Debug, Clone)]
pub struct Policy {
    /// Whether this user may change the namespace. If not, nothing of ours leaves this device (CR12).
    pub may_write: bool,
    /// Whether two edits of one text are merged where that is clean.
    pub merge_text: bool,
    /// Whether this disk folds case or normalises Unicode: names that clash are blocked (CR11).
    pub folds_names: bool,
    /// How long something must be missing, with nothing else going on, before it is looked for a second time (K18).
    pub missing_grace_ms: u64,
    /// Deletes within this time count as one for the brake.
    pub brake_window_ms: u64,
    /// Above this many items and [`Policy::brake_percent`] a delete is held.
    pub brake_items: u64,
    /// Above this share of all items and [`Policy::brake_items`] a delete is held.
    pub brake_percent: u64,
    /// Above this many items and [`Policy::alarm_percent`], changed or deleted by one other device within [`Policy::alarm_window_ms`], a person is told.
    pub alarm_items: u64,
    /// Above this share of all items and [`Policy::alarm_items`].
    pub alarm_percent: u64,
    /// Within this time.
    pub alarm_window_ms: u64,
    /// First pause before something blocked is tried again; doubled each time up to [`Policy::retry_max_ms`].
    pub retry_min_ms: u64,
    /// Longest pause before something blocked is tried again.
    pub retry_max_ms: u64,
    /// A planted bug, for tests of the tests.
    #[cfg(feature = "planted")]
    pub planted: Option<Planted>,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            may_write: true,
            merge_text: false,
            folds_names: false,
            missing_grace_ms: 150,
            brake_window_ms: 30_000,
            brake_items: 100,
            brake_percent: 30,
            alarm_items: 100,
            alarm_percent: 30,
            alarm_window_ms: 600_000,
            retry_min_ms: 1_000,
            retry_max_ms: 60_000,
            #[cfg(feature = "planted")]
            planted: None,
        }
    }
}

/// Bugs that the suites must catch. In a build without the feature `planted` there are none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Planted {
    /// A remote delete removes a local edit (breaks CR3).
    DeleteWins,
    /// A rename is sent as delete and create (breaks node identity).
    RenameAsCreate,
    /// The disk is changed without looking at what is expected (breaks I6).
    NoIdentityCheck,
    /// The base moves before the disk (breaks E7).
    BaseFirst,
    /// A cursor is taken over although the page was not (breaks I11).
    CursorSkips,
    /// A cycle of moves is accepted (breaks I10).
    CycleAccepted,
    /// What is missing is deleted at the first look (breaks K18).
    NoSecondLook,
    /// An unreadable entry is taken for a missing one (breaks E8).
    UnreadableIsMissing,
    /// The brake never holds (breaks K24).
    NoBrake,
    /// An edit replaces what the device has heard, not what the disk showed (breaks CR2).
    EditReplacesHeard,
    /// A relay that was restored is not sent what it lacks (breaks I1).
    EpochIgnored,
    /// Mode and time are set again and again (breaks I9).
    AttributesForever,
    /// An edit is written beside what the disk showed instead of over it (breaks I9: a conflict with oneself).
    EditReplacesNothing,
    /// A member who may only read sends his changes (breaks I13).
    ViewerSends,
    /// Names that this disk takes for one are put beside each other (breaks CR11).
    FoldingIgnored,
    /// The cursor of a peer's feed moves over a page that was lost (breaks I11).
    PeerCursorSkips,
    /// What a peer was to bring to the relay is never sent by anybody else (breaks I1).
    CarriedForEver,
    /// What a peer told is taken for something that the relay knows (breaks I1).
    HeardIsSent,
    /// A merged version replaces what was heard while it was made, not what it was made from (breaks I2).
    MergeReplacesHeard,
    /// A merge takes what one side was edited from, whether the other had seen it or not (breaks I2).
    MergeFromAnyBase,
    /// A merged version is written before it stands on disk (breaks I7).
    MergeWrittenFirst,
    /// What is on the disk is taken for done although the sync after it failed, or was never tried (breaks I7).
    AdoptsUnsynced,
    /// A run's events bear the numbers that follow those of the index, which may have been set back (breaks I2).
    RunsOnAsBefore,
    /// What is done after a start is told before the others were heard (breaks I2).
    TellsBeforeHearing,
}
