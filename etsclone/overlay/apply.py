"""Make the scope of a tree what an overlay holds, by executing a `TreePlan` and edits, and nothing else.

What is new is prepared in full in a private folder at the top of the filesystem where it belongs, and is safe on the
disk before the first path of the system changes; so is a journal of all that will. Then paths change hands by renames.
What is interrupted is finished or undone by the next run, and what was replaced or removed is kept until it is undone
or committed: the system is always exactly what it was, or exactly what it is to be, or known to be under way.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import nullcontext

from etsclone.errors import ComparisonFailed, ScopeConflict
from etsclone.model.edit import Edit
from etsclone.model.journal import Journal, Lock, Progress, Seen, Standing, Stay, Steps, Swap
from etsclone.model.keep import NOTHING, Keep
from etsclone.model.scope import Scope
from etsclone.model.tree import Entry, Kind, Tree, join, name_of, parent_of, printable
from etsclone.overlay.copies import copies
from etsclone.overlay.edits import needed_edits
from etsclone.overlay.files import (
    filesystem_top,
    opened_any,
    opened_folder,
    opened_root,
    typed_errors,
)
from etsclone.overlay.flags import LOCKS, read_flags
from etsclone.overlay.payload import Payload
from etsclone.overlay.projects import check_projects
from etsclone.overlay.rounds import NEW, Round, drop_leftovers, drop_staging, new_round
from etsclone.overlay.scan import scan
from etsclone.overlay.seen import sight, standing_of
from etsclone.overlay.staging import Content, Staging
from etsclone.overlay.swapping import forwards
from etsclone.plan.steps import handovers
from etsclone.plan.tree import MADE, Action, TreePlan, differences

_SHOWN = 5
"""How many differences a failed comparison names."""


def apply_plan(
    root: str,
    plan: TreePlan,
    payload: Payload,
    edits: Sequence[Edit] = (),
    *,
    keep: Keep = NOTHING,
    label: str = "",
    began: str = "",
    pair: str = "",
) -> None:
    """Execute a plan that was made for this root and this payload, and edits of files outside of its scope.

    Folders outside of the scope keep their times. An empty plan touches nothing.

    Args:
        root: the top of the tree; `/` inside `chroot.in_chroot`.
        plan: from `plan_tree`.
        payload: where the content of its files comes from.
        edits: what has its content already is left alone.
        keep: what programs of the system change afterwards, and is kept too; its paths are out of the plan's reach.
        label: what the tree becomes, for people who find the journal.
        began: when, in UTC (ISO 8601).
        pair: the pair that the overlay is of.

    Raises:
        ScopeConflict: when the filesystem that a path is to be on cannot hold its name, or takes it for that of
            another, of the overlay or of the disk, or projects of quotas forbid to move it; nothing has changed.
        TargetChanged: when an edited file is not as it was when the edit was made; nothing has changed.
        TargetFull: no space is left; unless a folder could not be made larger, nothing has changed.
        UnsafePath: when what was a folder is none any more since the plan was made; it is not followed.
        DeviceError: an input or output error.
        OSError: when the system refuses anything else.
    """
    with typed_errors(b"/"), opened_root(root) as top:
        edits = needed_edits(top, edits)
        for change in plan.changes:
            if change.action is Action.CLEAR:
                drop_leftovers(top)
                drop_staging(top, parent_of(change.path))
        if any(change.action is not Action.CLEAR for change in plan.changes) or edits or keep:
            drop_leftovers(top)
            own = copies(root, top, keep.paths, [edit.path for edit in edits], payload)
            plan = TreePlan((*plan.changes, *own.changes))
            _Apply(top, plan, own, edits, keep).run(label, began, pair)


def verify_scope(root: str, wanted: Tree, scope: Scope, *, skip: Collection[bytes] = ()) -> None:
    """Read the scope of a tree again and compare it with an overlay's; `skip` as in `scan`.

    Raises:
        ComparisonFailed: when they differ; it names the first few paths.
    """
    found = differences(scan(root, scope, skip=skip).scope, wanted)
    if found:
        more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        raise ComparisonFailed(
            f"the scope is not what the overlay holds: {'; '.join(found[:_SHOWN])}{more}",
            hint="see that nothing else writes to the disk, and rebuild again",
        )


# --- one apply -----------------------------------------------------------------------------------------------------


class _Apply:
    """A plan on its way: first prepared, then written down, then done."""

    def __init__(
        self, top: int, plan: TreePlan, payload: Content, edits: Sequence[Edit], keep: Keep
    ) -> None:
        self._top = top
        self._keep = keep
        self._plan = plan
        self._payload = payload
        self._edits = edits
        self._handovers = handovers(plan, [edit.path for edit in edits])
        self._retouched = {
            change.path: change.entry
            for change in plan.changes
            if change.action is Action.RETOUCH and change.entry
        }
        self._tops: dict[bytes, bytes] = {}

    def run(self, label: str, began: str, pair: str) -> None:
        tops = {handover.path: self._filesystem(handover.path) for handover in self._handovers}
        others = set(tops.values()).union(map(self._filesystem_in, self._retouched)) - {b"/"}
        try:
            version = 3 if self._handovers else 2 if self._keep.code or self._keep.lost else 1
            every = (b"/", *sorted(others))
            found = new_round(self._top, Journal(began, label, every, version=version, pair=pair))
            self._check_projects(found, tops)
            self._prepare(Staging(found, tops))
            found = found.begin(
                Steps(
                    tuple(self._swaps(tops)),
                    tuple(self._stays()),
                    tuple(self._locks()),
                    self._keep.code,
                    self._keep.lost,
                    tuple(self._was()),
                    tuple(self._put(found, tops)),
                )
            )
        except BaseException:
            drop_leftovers(self._top)  # what has begun all the same is none
            raise
        forwards(found)
        found.note(Progress.APPLIED)

    def _prepare(self, staging: Staging) -> None:
        staging.check_names(self._handovers)
        made = [change for change in self._plan.changes if change.action in MADE]
        for change in made:
            with typed_errors(change.path):
                if change.entry:
                    staging.put(change.entry, self._payload)
                else:
                    staging.put_parent(change.path)
        for edit in self._edits:
            with typed_errors(edit.path):
                staging.put_edited(edit)
        for path, entry in self._retouched.items():
            with typed_errors(path):
                staging.try_out(entry, self._filesystem_in(path))
        for change in self._plan.changes:
            if change.action is Action.REMOVE:
                self._check_no_mount(change.path)
        staging.finish(
            [change.entry for change in made if change.entry and change.entry.kind is Kind.FOLDER],
            [change.path for change in made if not change.entry],
        )

    def _swaps(self, tops: Mapping[bytes, bytes]) -> Iterator[Swap]:
        for each in self._handovers:
            flags = self._flags(each.path) if each.old else ()
            locks = flags if set(flags) & set(LOCKS) else ()
            yield Swap(each.path, tops[each.path], each.old, each.new, locks)

    def _stays(self) -> Iterator[Stay]:
        parents = {parent_of(each.path) for each in self._handovers}
        for path in sorted(parents | self._retouched.keys()):
            with opened_folder(self._top, path) as folder:
                before = standing_of(folder)
            entry = self._retouched.get(path)
            yield Stay(path, before, _wanted(entry) if entry else before)

    def _locks(self) -> Iterator[Lock]:
        entries = (change.entry for change in self._plan.changes if change.action in MADE)
        new = ((entry.path, entry.flags) for entry in entries if entry and not entry.link_to)
        edited = ((edit.path, self._flags(edit.path)) for edit in self._edits)
        for path, flags in (*new, *edited):
            if set(flags) & set(LOCKS):
                yield Lock(path, flags)

    def _was(self) -> Iterator[Seen]:
        for each in self._handovers:
            if each.old:
                with typed_errors(each.path):
                    yield from sight(self._top, each.path, each.path).values()

    def _put(self, found: Round, tops: Mapping[bytes, bytes]) -> Iterator[Seen]:
        for number, each in enumerate(self._handovers):
            if each.new and each.path not in self._keep.paths:
                place = join(join(found.folder(tops[each.path]), NEW), b"%06d" % number)
                with typed_errors(each.path):
                    yield from sight(self._top, place, each.path).values()

    def _flags(self, path: bytes) -> tuple[str, ...]:
        with (
            opened_folder(self._top, parent_of(path)) as parent,
            opened_any(parent, name_of(path)) as found,
        ):
            return () if found is None else read_flags(found)

    def _check_no_mount(self, path: bytes) -> None:
        if self._filesystem_in(path) != self._filesystem_in(parent_of(path)):
            raise ScopeConflict(
                f"another filesystem is mounted at {printable(path)}", hint="unmount it"
            )

    def _check_projects(self, found: Round, tops: Mapping[bytes, bytes]) -> None:
        for each in self._handovers:
            with (
                typed_errors(each.path),
                opened_folder(self._top, parent_of(each.path)) as parent,
                opened_folder(self._top, join(found.folder(tops[each.path]), NEW)) as staging,
                opened_any(parent, name_of(each.path)) if each.old else nullcontext() as old,
            ):
                check_projects(each.path, parent, staging, old, new=each.new)

    def _filesystem(self, path: bytes) -> bytes:
        return self._filesystem_in(parent_of(path))

    def _filesystem_in(self, folder: bytes) -> bytes:
        """The top of the filesystem of what is in a folder; for what is none, of itself."""
        if folder not in self._tops:
            self._tops[folder] = filesystem_top(self._top, join(folder, b"-"))
        return self._tops[folder]


def _wanted(entry: Entry) -> Standing:
    return Standing(entry.mode, entry.uid, entry.gid, entry.mtime_ns, entry.xattrs, entry.flags)
