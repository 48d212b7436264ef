"""Reads a run's curves as TensorBoard does, and prints them.

    python3 -m venv venv && venv/bin/pip install tensorboard==2.21.0
    venv/bin/python tests/reference/events.py runs/grpo-answer
"""

import sys

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

events = EventAccumulator(sys.argv[1])
events.Reload()
for tag in sorted(events.Tags()["scalars"]):
    print(tag, [(event.step, round(event.value, 6)) for event in events.Scalars(tag)])
