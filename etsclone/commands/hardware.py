"""What `rebuild` shows of how the system fits the machine that is to boot it, and the addresses that it gives it."""

import os
from argparse import ArgumentParser, Namespace
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter

from etsclone.boot.drivers import Drivers
from etsclone.boot.hardware import devices, nics
from etsclone.commands.rebuild_shown import Section
from etsclone.commands.system import System
from etsclone.errors import UsageError
from etsclone.execute.hardware import HardwareSurvey, survey_hardware
from etsclone.execute.rebuild import Editor, RebuildPlan
from etsclone.model.hardware import Binding, Nic, check_mac
from etsclone.model.tree import printable
from etsclone.plan.drivers import Lack, lacking
from etsclone.plan.nics import maps, rewrite

_SHOWN = 5
"""Places of one address that people are told."""


@dataclass(frozen=True, slots=True)
class Nics:
    """Other addresses by old ones (`--map-nic`); interfaces of the machine that will boot; whether it is this one."""

    mapping: Mapping[str, str]
    machine: tuple[Nic, ...]
    here: bool


def add_nics(parser: ArgumentParser) -> None:
    """Give a command the options that `given_nics` reads."""
    parser.add_argument(
        "--map-nic",
        metavar="OLD=NEW",
        action="append",
        default=[],
        help="where the system names a network interface by the MAC address OLD, or by a name made of it (enx...),"
        " write NEW; may be given again",
    )
    parser.add_argument(
        "--nic",
        metavar="MAC",
        action="append",
        default=[],
        help="a network interface of the machine that will boot the disk, if that is not this one; may be given again",
    )


def given_nics(arguments: Namespace) -> Nics:
    """What the command line says of interfaces.

    Raises:
        UsageError: when something is no MAC address, or two are mapped from or to the same one.
    """
    pairs = [_pair(word) for word in arguments.map_nic]
    for what, macs in (("from", [old for old, _ in pairs]), ("to", [new for _, new in pairs])):
        if twice := {mac for mac in macs if macs.count(mac) > 1}:
            raise UsageError(
                f"--map-nic maps twice {what} {', '.join(sorted(twice))}",
                hint="each interface has an address of its own",
            )
    machine = tuple(Nic("", _mac(word, "--nic")) for word in arguments.nic)
    return Nics(dict(pairs), machine or nics(), not machine)


def nic_editors(given: Nics) -> tuple[Editor, ...]:
    """Who writes other addresses; nobody where none is mapped."""
    return (lambda files: rewrite(files, given.mapping),) if given.mapping else ()


def hardware_section(system: System, plan: RebuildPlan, given: Nics) -> Section:
    """How the system that a plan leaves fits the machine.

    Raises:
        UsageError: when the plan, executed twice, would map addresses twice.
    """
    _check_repeatable(plan, given)
    survey = survey_hardware(system.folder, plan, given.machine)
    drivers = survey.drivers if given.here else None
    lacks = lacking(drivers.kernel, drivers.held, devices()) if drivers else ()
    lines = [*_network_lines(survey, given), *_driver_lines(drivers, lacks)]
    return Section("hardware", _facts(survey, given, drivers, lacks), lines)


def _check_repeatable(plan: RebuildPlan, given: Nics) -> None:
    """The overlay's files begin with the old addresses each time; of others nobody knows how often they were mapped."""
    chained = given.mapping.keys() & given.mapping.values()
    outside = [edit.path for edit in plan.outer_edits if maps(edit)]
    if chained and outside:
        raise UsageError(
            f"{', '.join(sorted(chained))} is both mapped from and mapped to, and {printable(outside[0])} is not of"
            " the role: repeated, the rebuild would map it again",
            hint="rebuild twice: first to addresses that no interface has, then from these",
        )


def _pair(word: str) -> tuple[str, str]:
    old, equals, new = word.partition("=")
    if not equals:
        raise UsageError(
            f"--map-nic {word} is not OLD=NEW",
            hint="for example: --map-nic 52:54:00:12:34:56=52:54:00:65:43:21",
        )
    pair = _mac(old, "--map-nic"), _mac(new, "--map-nic")
    if pair[0] == pair[1]:
        raise UsageError(f"--map-nic {word} changes nothing", hint="name another address")
    return pair


def _mac(word: str, option: str) -> str:
    try:
        return check_mac(word)
    except ValueError as error:
        raise UsageError(
            f"{option}: {error}", hint="`ip link` shows those of this machine: 52:54:00:12:34:56"
        ) from error


def _network_lines(survey: HardwareSurvey, given: Nics) -> Iterator[str]:
    found, others = survey.bindings, survey.mentions
    if not (found or others.found or given.mapping) and others.whole:
        return
    own = {nic.mac: nic for nic in given.machine}
    word = "network  "
    for text, bound in groupby(found, lambda binding: _binding(binding, own, here=given.here)):
        places = _listed(f"{printable(each.path)}:{each.line}" for each in bound)
        yield f"{word}{text} ({places})"
        word = " " * len(word)
    machine = "this machine" if given.here else "that machine"
    yield f"{word}{machine} has {', '.join(map(_nic, given.machine)) or 'no network interface'}"
    if any(each.matches and each.mac not in own for each in found):
        yield f"{' ' * len(word)}--map-nic OLD=NEW writes other addresses"
    for mac, named in groupby(others.found, attrgetter("mac")):
        places = _listed(map(str, named))
        yield f"{' ' * len(word)}MAC {mac}, which {machine} does not have, is named in {places}: change that by hand"
    if not others.whole:
        yield f"{' ' * len(word)}not all of /etc was looked through for MAC addresses: there is too much"


def _listed(places: Iterable[str]) -> str:
    every = list(places)
    more = f" and {len(every) - _SHOWN} more" if len(every) > _SHOWN else ""
    return f"{', '.join(every[:_SHOWN])}{more}"


def _binding(binding: Binding, own: Mapping[str, Nic], *, here: bool) -> str:
    name, nic = binding.name or "an interface", own.get(binding.mac)
    if not binding.matches:
        return f"{name} is given the MAC {binding.mac}"
    if nic is None:
        machine = "this machine" if here else "that machine"
        return f"{name} is bound to MAC {binding.mac}, which {machine} does not have"
    return f"{name} is bound to MAC {binding.mac}" + (f", {nic.name} here" if nic.name else "")


def _nic(nic: Nic) -> str:
    return " ".join(filter(None, (nic.name, nic.mac, f"({nic.driver})" if nic.driver else "")))


def _driver_lines(drivers: Drivers | None, lacks: tuple[Lack, ...]) -> Iterator[str]:
    word = "drivers  "
    for text in (*map(str, lacks), *filter(None, (drivers and drivers.problem,))):
        yield f"{word}{text}"
        word = " " * len(word)


def _facts(
    survey: HardwareSurvey, given: Nics, drivers: Drivers | None, lacks: tuple[Lack, ...]
) -> dict[str, object]:
    machine = {nic.mac for nic in given.machine}
    return {
        "mapped": dict(given.mapping),
        "nics": [{"name": nic.name, "mac": nic.mac, "driver": nic.driver} for nic in given.machine],
        "bindings": [
            {
                "path": os.fsdecode(each.path),
                "line": each.line,
                "name": each.name,
                "mac": each.mac,
                "matches": each.matches,
                "present": each.mac in machine,
            }
            for each in survey.bindings
        ],
        "mentions": [
            {"path": os.fsdecode(each.path), "line": each.line, "mac": each.mac}
            for each in survey.mentions.found
        ],
        "mentions_whole": survey.mentions.whole,
        "kernel": drivers.kernel.version if drivers else None,
        "drivers_lacking": [
            {"purpose": lack.purpose.value, "device": lack.name, "modules": list(lack.modules)}
            for lack in lacks
        ],
        "drivers_unknown": drivers.problem if drivers else "",
    }
