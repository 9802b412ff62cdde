"""What `prediction.json` says of the views."""

from utseg.inference.views import NO_AUGMENTATION
from utseg.inference.views import TestTimeAugmentation as Augmentation
from utseg.predict.record import PredictionRecord, read_record, write_record

CONTENT = {
    "models": [
        {"name": "D/auto_2d/UNet/fold0", "network": "UNet", "weights_sha256": "1", "plan_sha256": "2"}
    ],
    "labels": {"background": 0, "LV": 1},
    "channel_names": ["cine"],
    "versions": {},
    "device": "cpu",
    "cases": {},
}


def test_other_views_are_another_provenance_and_are_on_record(tmp_path):
    views = [NO_AUGMENTATION, Augmentation(mirror_axes=("x",)), Augmentation(rotation_degrees=(10, -10))]
    records = [PredictionRecord(**CONTENT, test_time_augmentation=each) for each in views]
    for number, record in enumerate(records):
        write_record(record, tmp_path)
        read = read_record(tmp_path)
        assert [read.same_provenance(other) for other in records] == [other == number for other in range(3)]
        assert read.test_time_augmentation == views[number]
