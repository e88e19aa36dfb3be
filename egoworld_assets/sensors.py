"""The sensor on the raw folder: new, stable files, not yet known by content, become partitions and runs."""

import dagster as dg

from egoworld_assets.jobs import process_videos
from egoworld_assets.partitions import VIDEO_IDS
from egoworld_assets.resources import Egoworld
from egoworld_ops.errors import printable

MAX_VIDEOS_A_TICK = 50


@dg.sensor(
    job=process_videos,
    minimum_interval_seconds=10,
    default_status=dg.DefaultSensorStatus.STOPPED,
    description="Registers new raw videos and processes them. A file must keep its size and time of change from one tick to the next.",
)
def new_raw_videos(context: dg.SensorEvaluationContext, egoworld: Egoworld) -> dg.SensorResult:
    """One bounded look at the raw folder."""
    from egoworld_ops.raw import register

    found = register.look(egoworld.settings, context.cursor, MAX_VIDEOS_A_TICK)
    for row in found.refused:
        context.log.warning(f"{printable(row['path'])}: {row['status']}: {row['reason']}. {row['cure']}")
    for line in found.passed_over:
        context.log.warning(line)
    fresh = register.waiting_videos(egoworld.settings, context.instance.get_dynamic_partitions("video_id"), MAX_VIDEOS_A_TICK)
    context.log.info(f"{len(fresh)} new video(s), {len(found.refused)} file(s) not taken")
    return dg.SensorResult(
        run_requests=[dg.RunRequest(run_key=video_id, partition_key=video_id) for video_id in fresh],
        dynamic_partitions_requests=[VIDEO_IDS.build_add_request(fresh)] if fresh else [],
        cursor=found.cursor,
    )


SENSORS = [new_raw_videos]
