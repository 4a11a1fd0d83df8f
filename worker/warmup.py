"""The first detection: on a real picture, so that a server that cannot see never says it serves."""

from __future__ import annotations

import base64

from unface.anonymize import decode
from unface.errors import EngineError, UnfaceError
from unface.mtcnn.options import DetectOptions
from unface.worker.batch import Detector

# Eileen Collins, NASA 1993 (public domain): 64 x 64 pixels, JPEG.
FACE = base64.b64decode(
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDABALDA4MChAODQ4SERATGCgaGBYWGDEjJR0oOjM9PDkzODdASFxOQERXRTc4"
    "UG1RV19iZ2hnPk1xeXBkeFxlZ2P/2wBDARESEhgVGC8aGi9jQjhCY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2Nj"
    "Y2NjY2NjY2NjY2NjY2NjY2NjY2P/wAARCABAAEADASIAAhEBAxEB/8QAGwAAAgIDAQAAAAAAAAAAAAAABQYDBAABAgf/"
    "xAAxEAACAQMCBAQEBQUAAAAAAAABAgMABBEFIQYSMUETIlFhFDJxsSMkM5HBUmKBoeH/xAAYAQADAQEAAAAAAAAAAAAA"
    "AAAAAgMBBP/EABsRAAMBAQADAAAAAAAAAAAAAAABEQIhEiIx/9oADAMBAAIRAxEAPwAnf6iLZCq7vj9qEQ3bXQcMw3B8"
    "x7VHdv4moTxyZHm6/aogfBvEtowGLda53rpVIy0tra0YpkF235lO4opbSg/JJlvcD+KpXMOX5Gi5WHQ1uBvDJ5gfbNIN"
    "C1NGZGJlRHz3CnND9QMUcR5TjAwQauC/RXJB5XWhGr3yXRJGzg7kd6DDEveaLnicgxYy2f2py065W+sIrhcZYeYDse9I"
    "USqF5ELb/MGG1NHCEyi1ntxv4bg59cj/AJVMOOCsE6xciHVZFcYIxgj6Vzo6tPq6yk5CgtRTiHRnvENxbAeKowy/1Cq/"
    "ClsySyeKCOg3rNZjGXQ7Je2iMEmntzJ0CHP3q7EttPGG8JdutQyaXbMUfkAZTzKfQ1iKIIXVNhij4MVLy306RypjTmI6"
    "82KVdV0cW8heBmCkZG4YH/NMw06C+tCko3LZJqreacsCynPlIyFHQVgMTbe4ZwSc5U00cIKPibmRcheUA5HfNLFuojkm"
    "UHrkD69qetBsZbPTEWf9VzzsPTPanS9uE2FkXaoJoxCyuqgZONqEXXF9nakouGI98/aq1rxbHqF5FbCHHM2xx7VTS4Zl"
    "xjA88shERPhoOpJ6+wrT+KiMwh5x0GDUjpHc24VlDAbjIzvWMIlhAaJS3sStRXS6BlnNLDKQ68qnqprWqSGZljjBLNtg"
    "VLa28IvGuHQDAON84HtW7ZfidU8UDyR7n+BQlXDG4VNE4bjs5TdXALyZyisPl9/rR8iu2OazGatIRtPHjZslqs8pKBvl"
    "Ujdh61b4fZE1u1OSPP1Nda5JJPfSbYQNhfTA229qGj8PcHcd6H1Co9aYNbESKC0Z6gdq4k1OyK7zKCOxO9IltxTqkMQj"
    "+IEiDoJFB/31qR+J5JB+Ys7eT3AKmp+LKrYw3N/4zkQjy+tFNDeJrZkEgMvMSw70iz8SEjEFqEP9zZxQ601W6tbw3CSH"
    "mZuZh2NNjLTrF1qnrpGKwdKEaBrsWqwKGIEv3Pp9aMBd6cU//9k="
)


def warm_up(detector: Detector) -> None:
    """Find the one face of `FACE`; raises `EngineError` with the reason when that fails."""
    try:
        faces = detector.detect(decode(FACE).pixels, DetectOptions())
    except UnfaceError as error:
        raise EngineError(f"the warm-up detection failed: {error}") from error
    except Exception as error:
        raise EngineError(f"the warm-up detection failed: {error!r}") from error
    if len(faces) != 1:
        raise EngineError(
            f"the warm-up detection found {len(faces)} faces in a picture of one: "
            f"the {faces.precision} engines cannot be trusted"
        )
