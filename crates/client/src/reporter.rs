//! Who is told what a client does while it does it.

use barecount_api::activity::Activity;
use barecount_model::run::Run;

/// Told, line by line, of what goes on. What comes of it is returned, and not told here.
pub trait Reporter: Send + Sync {
    /// Something that a person wants to know, and a program does not.
    fn note(&self, line: &str);

    /// The same for a person who asked for details.
    fn detail(&self, line: &str);

    /// Something that nobody may miss, of one or more lines.
    fn warn(&self, text: &str);
}

/// Told of one run, from its beginning to its end.
pub trait Watcher: Send + Sync {
    /// Who is told of what is not the run itself.
    fn reporter(&self) -> &dyn Reporter;

    /// A run is followed from here on. Of one that is `new`, nothing was told; what another one has
    /// behind it is not told again.
    fn begins(&self, run: &Run, new: bool);

    /// The run has changed.
    fn changed(&self, run: &Run);

    /// What attempts do now, of whatever run. Told again and again.
    fn under_way(&self, run: &Run, activities: &[Activity]);

    /// Something about the run that is in no state of it.
    fn line(&self, text: &str);
}
