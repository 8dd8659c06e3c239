"""The account of a retraining as JUnit XML: any CI shows it as tests.

One test case says how the retraining ended, and one for each rule of the gate what it found. An
undecided rule is a failure, because it keeps the model out of production.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from datetime import datetime
from typing import Final

from moaa.retrain.account import Account, headline

SKIPPED: Final = ("nothing new", "planned", "started", "busy")
"""States in which nothing was decided, and nothing is wrong."""
# Characters that XML 1.0 cannot hold.
_FORBIDDEN = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def document(account: Account) -> str:
    """Return the XML."""
    name, state = f"moaa retrain {account.name}", account.outcome.state
    suite = ET.Element("testsuite", name=_text(name), timestamp=account.started[:19])
    whole = ET.SubElement(
        suite, "testcase", name="retraining", classname=_text(name), time=f"{_seconds(account):.0f}"
    )
    if state in SKIPPED:
        ET.SubElement(whole, "skipped", message=_text(f"{state}: {account.outcome.why}"))
    elif account.outcome.exit_status:
        kind = "error" if state == "failed" else "failure"
        first = account.outcome.why.partition("\n")[0]
        told = ET.SubElement(whole, kind, message=_text(first), type=state)
        told.text = _text(account.outcome.why)
    for each in account.findings:
        case = ET.SubElement(
            suite, "testcase", name=_text(each["rule"]), classname=_text(f"{name}.gate"), time="0"
        )
        if each["outcome"] != "pass":
            needed = f"; {each['needed']:,} items would decide it" if each["needed"] else ""
            message = _text(f"{each['about']}{needed}")
            ET.SubElement(case, "failure", message=message, type=each["outcome"])
    for attribute, kind in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        suite.set(attribute, str(len(suite.findall(f"testcase/{kind}"))))
    suite.set("tests", str(len(suite.findall("testcase"))))
    ET.SubElement(suite, "system-out").text = _text(headline(account))
    suites = ET.Element("testsuites")
    suites.append(suite)
    ET.indent(suites)
    return ET.tostring(suites, encoding="unicode", xml_declaration=True) + "\n"


def _seconds(account: Account) -> float:
    began, ended = map(datetime.fromisoformat, (account.started, account.ended))
    return (ended - began).total_seconds()


def _text(text: str) -> str:
    return _FORBIDDEN.sub("�", text)
