"""The bill of materials of a lock, as CycloneDX 1.6: models, their files, and the engines with their packages.

Deterministic: it is made from the lock and the requirement sets that the lock names by hash, and from nothing else.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterable, Iterator
from datetime import datetime

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import HashAlgorithm, HashType, Property
from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import License, LicenseAcknowledgement
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

from deploy import __version__, project
from deploy.engine import Engine
from deploy.lockfile import EnginePin, File, Lock, Model, Variant

PINNED = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)(?:\[[^\]]*\])?==([^\s;\\]+)", re.MULTILINE)
PREFIX = "ownweights"


def document(lock: Lock, engines: Iterable[Engine], at: datetime | None = None) -> str:
    """JSON. The packages of an engine are in it where this ownweights brings the requirement set that is locked."""
    root = Component(name="deployment", type=ComponentType.APPLICATION, version=lock.digest, bom_ref="deployment")
    bom = Bom(
        serial_number=uuid.uuid5(uuid.NAMESPACE_OID, f"{PREFIX} {__version__} {lock.digest}"),
        metadata=BomMetaData(component=root, timestamp=at, properties=_properties({"lock": f"sha256:{lock.digest}"})),
    )
    bom.metadata.tools.components.add(
        Component(name=PREFIX, version=__version__, type=ComponentType.APPLICATION, bom_ref=PREFIX)
    )
    parts = [_variant(model, variant) for model in lock.models for variant in model.variants]
    known = {project.engine_pin(engine): engine.requirements for engine in engines}
    packages: dict[str, Component] = {}
    for pin in lock.engines:
        component = _engine(pin)
        listed = _packages(known[pin].read_text(encoding="utf-8")) if pin in known else ()
        bom.register_dependency(component, [packages.setdefault(str(one.purl), one) for one in listed])
        parts.append(component)
    bom.components.update(parts, packages.values())
    bom.register_dependency(root, parts)
    return _text(bom, timed=at is not None)


def _text(bom: Bom, *, timed: bool) -> str:
    """The library stamps every document with the time of its making, and the same lock shall be the same bytes."""
    tree = json.loads(JsonV1Dot6(bom).output_as_string())
    if not timed:
        del tree["metadata"]["timestamp"]
    return json.dumps(tree, indent=2, ensure_ascii=False) + "\n"


def _variant(model: Model, variant: Variant) -> Component:
    origin = variant.origin
    group, _, name = (origin.repo or "").rpartition("/")
    ref = f"model/{model.name}/{variant.key}"
    fetched = {file.path for file in variant.files}
    files = [_file(ref, file, code=file.path.endswith(".py")) for file in variant.files]
    files += [_file(ref, file, code=True, fetched=False) for file in variant.code if file.path not in fetched]
    facts = {
        "model": model.name,
        "format": variant.format,
        "precision": variant.precision,
        "size": str(variant.size),
        "tree": variant.tree,
        "architecture": variant.facts.architecture,
        "chat-template": variant.facts.chat_template,
    }
    return Component(
        type=ComponentType.MACHINE_LEARNING_MODEL,
        bom_ref=ref,
        group=group or None,
        name=name or model.name,
        version=origin.commit or variant.tree,
        purl=PackageURL("huggingface", group, name, origin.commit) if name else None,
        licenses=_licences(variant),
        properties=_properties(facts),
        components=files,
    )


def _licences(variant: Variant) -> Iterator[License]:
    if variant.licence:
        yield LicenseFactory().make_from_string(
            variant.licence.id, license_acknowledgement=LicenseAcknowledgement.DECLARED
        )


def _file(ref: str, file: File, *, code: bool, fetched: bool = True) -> Component:
    marks = {"size": str(file.size), "remote-code": ("fetched" if fetched else "not fetched") if code else None}
    return Component(
        type=ComponentType.FILE,
        bom_ref=f"{ref}/{file.path}",
        name=file.path,
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=file.sha256)],
        properties=_properties(marks),
    )


def _engine(pin: EnginePin) -> Component:
    return Component(
        type=ComponentType.APPLICATION,
        bom_ref=f"engine/{pin.name}/{pin.device}",
        name=pin.name,
        version=pin.version,
        properties=_properties({"device": pin.device, "requirements": pin.requirements}),
    )


def _packages(requirements: str) -> Iterator[Component]:
    for name, version in PINNED.findall(requirements):
        purl = PackageURL("pypi", None, name, version)
        yield Component(bom_ref=str(purl), type=ComponentType.LIBRARY, name=purl.name, version=version, purl=purl)


def _properties(values: dict[str, str | None]) -> list[Property]:
    return [Property(name=f"{PREFIX}:{name}", value=value) for name, value in values.items() if value is not None]
