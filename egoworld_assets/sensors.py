"""The sensor on the raw folder: new, stable files, not yet known by content, become partitions and runs."""

import dagster as dg

from egoworld_assets.jobs import PURPOSE_TAG, process_videos
from egoworld_assets.partitions import MAX_KEYS_A_CALL, VIDEO_IDS, offered
from egoworld_assets.resources import Egoworld
from egoworld_ops.errors import printable
from egoworld_ops.lake.lake import Lake

MAX_VIDEOS_A_TICK = 50


@dg.sensor(
    job=process_videos,
    minimum_interval_seconds=10,
    default_status=dg.DefaultSensorStatus.STOPPED,
    description="Registers new raw videos and processes them. A file must keep its size and time of change from one tick to the next.",
)
def new_raw_videos(context: dg.SensorEvaluationContext, egoworld: Egoworld) -> dg.SensorResult:
    """One bounded scan of the raw folder."""
    from egoworld_ops.raw import intake, register

    found = register.scan(egoworld.settings.raw, egoworld.settings.lake, context.cursor, MAX_VIDEOS_A_TICK)
    for row in found.refused:
        context.log.warning(f"{printable(row['path'])}: {row['status']}: {row['reason']}. {row['cure']}")
    for line in found.passed_over:
        context.log.warning(line)
    store = Lake(egoworld.settings.lake)
    lake_id = intake.lake_id(store)
    fresh, by_hand = _not_offered(context.instance, store, lake_id)
    said = f"{len(fresh)} new video(s) in {egoworld.settings.raw}, {len(found.refused)} file(s) not taken"
    context.log.info(said)
    additions = [(VIDEO_IDS, fresh), (offered(lake_id), [*fresh, *by_hand])]
    return dg.SensorResult(
        run_requests=[
            dg.RunRequest(run_key=f"{lake_id}:{video_id}", partition_key=video_id, tags={PURPOSE_TAG: "new raw video"})
            for video_id in fresh
        ],
        dynamic_partitions_requests=[partitions.build_add_request(keys) for partitions, keys in additions if keys],
        cursor=found.cursor,
        skip_reason=None if fresh else said,
    )


def _not_offered(instance: dg.DagsterInstance, store: Lake, lake_id: str) -> tuple[list[str], list[str]]:
    """Registered videos that were never made partitions for this lake: those to process now, and those a person has started already.

    A tick that ends between registering and adding loses nothing; a partition that a person deleted is not added again; a new lake has its
    videos processed, though an earlier one has made them partitions of this instance.
    """
    from egoworld_ops.raw import intake

    present = set(instance.get_dynamic_partitions(str(VIDEO_IDS.name)))
    known = set(instance.get_dynamic_partitions(str(offered(lake_id).name)))
    unknown = [video_id for video_id in intake.registered(store) if video_id not in known]
    runs = store.runs()
    by_hand = {v for v in present.intersection(unknown) if any(run.video_folder(v).exists() for run in runs)}
    return [v for v in unknown if v not in by_hand][:MAX_VIDEOS_A_TICK], sorted(by_hand)[:MAX_KEYS_A_CALL]


@dg.sensor(
    name="alerts",
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.STOPPED,
    description="Tells people (settings `alerts`: chat, webhook, mail) of runs that fail, dead letters, drift, failing sensors and a full disk.",
)
def alerts(context: dg.SensorEvaluationContext, egoworld: Egoworld) -> dg.SkipReason:
    """One look; what was sent to whom is the cursor. It starts no run."""
    from egoworld_assets import alerting
    from egoworld_ops.alerts import sending

    to = sending.shown(egoworld.settings.alerts)
    if not to:
        return dg.SkipReason(alerting.NOBODY)
    told = alerting.look(egoworld.settings, context.instance, context.cursor)
    for name, why in told.untold.items():
        context.log.warning(f"{name} ({to[name]}) was not told: {why}; it is tried again")
    context.update_cursor(told.memory)
    return dg.SkipReason(f"{len(told.on)} things are wrong, {told.sent} messages sent, {len(told.untold)} receivers not reached")


SENSORS = [new_raw_videos, alerts]
