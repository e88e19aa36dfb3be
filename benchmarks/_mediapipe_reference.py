"""MediaPipe's own Python API on a video, as its users call it. Runs in an environment of its own; prints one line of JSON per round asked for.

    python _mediapipe_reference.py VIDEO MAX_NUM_HANDS

Each line on standard input starts one round.
"""

import json
import sys
import time

import cv2
import mediapipe as mp


def one_round(path: str, max_num_hands: int) -> dict[str, float]:
    """Decode and track a whole video; loading the networks is not counted."""
    with mp.solutions.hands.Hands(static_image_mode=False, max_num_hands=max_num_hands, model_complexity=1) as hands:
        started, cpu_started = time.perf_counter(), time.process_time()
        video, frames, found = cv2.VideoCapture(path), 0, 0
        while True:
            more, bgr = video.read()
            if not more:
                break
            result = hands.process(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB))
            frames += 1
            found += bool(result.multi_hand_world_landmarks)
        return {
            "frames": frames,
            "found": found,
            "seconds": time.perf_counter() - started,
            "cpu_seconds": time.process_time() - cpu_started,
        }


if __name__ == "__main__":
    for _ in sys.stdin:
        print(json.dumps(one_round(sys.argv[1], int(sys.argv[2]))), flush=True)
