"""The reference for TensorBoard event files.

    python tensorboard_check.py write FIXTURE    records the fixture that trainer/src/log/event.rs must equal
    python tensorboard_check.py read FOLDER      prints, as JSON lines, what TensorBoard sees in a run's events

Needs the PyPI package `tensorboard` (2.21 made the fixture).
"""

import json
import sys

from tensorboard.compat.proto import event_pb2, summary_pb2, tensor_pb2, tensor_shape_pb2, types_pb2


def scalar_event(wall_time, step, values):
    summary = summary_pb2.Summary(
        value=[summary_pb2.Summary.Value(tag=tag, simple_value=value) for tag, value in values]
    )
    return event_pb2.Event(wall_time=wall_time, step=step, summary=summary)


def text_event(wall_time, step, tag, text):
    plugin = summary_pb2.SummaryMetadata.PluginData(plugin_name="text")
    shape = tensor_shape_pb2.TensorShapeProto(dim=[tensor_shape_pb2.TensorShapeProto.Dim(size=1)])
    tensor = tensor_pb2.TensorProto(dtype=types_pb2.DT_STRING, tensor_shape=shape, string_val=[text.encode()])
    value = summary_pb2.Summary.Value(
        tag=tag, metadata=summary_pb2.SummaryMetadata(plugin_data=plugin), tensor=tensor
    )
    return event_pb2.Event(wall_time=wall_time, step=step, summary=summary_pb2.Summary(value=[value]))


def write(path):
    from tensorboard.summary.writer.record_writer import RecordWriter

    with open(path, "wb") as file:
        writer = RecordWriter(file)
        for event in (
            event_pb2.Event(wall_time=1_700_000_000.25, file_version="brain.Event:2"),
            scalar_event(1_700_000_001.5, 0, [("objective/kl", 0.0)]),
            scalar_event(1_700_000_002.5, 300, [("objective/gen_ndcg@20", 0.0494), ("dpo/lr", 1e-7)]),
            text_event(1_700_000_003.5, 70_000, "samples", "Likes slow films.\n" * 20),
        ):
            writer.write(event.SerializeToString(deterministic=True))
        writer.flush()


def read(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util import tensor_util

    # 0 keeps every event; by default TensorBoard keeps a sample.
    events = EventAccumulator(folder, size_guidance={"scalars": 0, "tensors": 0})
    events.Reload()
    for tag in sorted(events.Tags()["scalars"]):
        for event in events.Scalars(tag):
            print(json.dumps({"tag": tag, "step": event.step, "value": event.value}))
    for tag in sorted(events.Tags()["tensors"]):
        plugin = events.SummaryMetadata(tag).plugin_data.plugin_name
        for event in events.Tensors(tag):
            values = tensor_util.make_ndarray(event.tensor_proto)
            text = [value.decode() for value in values.ravel()]
            print(json.dumps({"tag": tag, "step": event.step, "plugin": plugin, "text": text}))


if __name__ == "__main__":
    {"write": write, "read": read}[sys.argv[1]](sys.argv[2])
