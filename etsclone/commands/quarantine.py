"""`clone --quarantine`: telling that the clone will be, and is, in quarantine."""

from etsclone.model.plan import ClonePlan
from etsclone.model.quarantine import IN_QUARANTINE


def quarantine_lines(plan: ClonePlan) -> list[str]:
    """What becomes of the clone, for people."""
    if not plan.quarantined:
        hidden = plan.target.content.type == IN_QUARANTINE
        return ["it leaves its quarantine: --quarantine keeps it there"] if hidden else []
    command = f"`etsclone release {plan.target.path}`"
    return [f"the clone stays in quarantine: nothing boots or mounts it until {command}"]


def result_words(plan: ClonePlan) -> str:
    """What the target is when the plan was executed."""
    if not plan.quarantined:
        return "a clone"
    return f"a clone in quarantine, until `etsclone release {plan.target.path}`"
