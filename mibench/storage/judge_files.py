"""The files of the public face embeddings that judge beside the evaluation models; they lie in ``paths.weights``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mibench.storage.fetching import Download

#: The package that carries dlib's face network as face-api stores it (MIT).
FACE_API = "npm:@vladmandic/face-api@1.7.15"

MOBILEFACENET = Download(
    path="mobilefacenet_casia_068.ckpt",
    url="https://raw.githubusercontent.com/Xiaoccer/MobileFaceNet_Pytorch/26bd8d262017e472a3c7f56d62929e2138a70aeb/"
    "model/best/068.ckpt",
    sha256="e839247cdbdfc023fb7cadeaf53a4549d50c8fc24ad154c02e35920ea8910d99",
    instead=("mobilefacenet/mobilefacenet_casia_068.ckpt",),
)

FACE_RESNET_WEIGHTS = Download(
    path="face_resnet/face_recognition_model.bin",
    package=FACE_API,
    members=("package/model/face_recognition_model.bin",),
    sha256="b413e420d6840b2775fba32008db6f3cddb07d485967fb42cfcf379c16a8c589",
)

FACE_RESNET_MANIFEST = Download(
    path="face_resnet/face_recognition_model-weights_manifest.json",
    package=FACE_API,
    members=("package/model/face_recognition_model-weights_manifest.json",),
    sha256="cbaffa501b0b9275a12b63357a6843e7e30c054e1c9151e1a5f879b26e32986b",
)

#: What ``python -m mibench fetch NAME`` fetches for judges, by name.
JUDGE_FILES: Mapping[str, Sequence[Download]] = {
    "face_judges": (FACE_RESNET_WEIGHTS, FACE_RESNET_MANIFEST, MOBILEFACENET)
}
