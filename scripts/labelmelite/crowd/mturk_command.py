"""What `segloop mturk` does with its options."""

import argparse

from labelmelite.crowd.mturk import LIVE, SANDBOX, Offer, Requester, accepted_assignments, client, price
from segloop.errors import SegloopError


def mturk(options: argparse.Namespace) -> int:
    """Post, list, approve or end tasks."""
    if options.way == "post" and options.reward is None and options.seconds is None:
        raise SegloopError("say what a task pays: --reward DOLLARS, or --seconds of one task and --wage")
    for way, name in (("post", "link"), ("approve", "data")):
        if options.way == way and getattr(options, name) is None:
            raise SegloopError(f"`segloop mturk {way}` needs --{name}")
    endpoint = options.endpoint or (LIVE if options.live else SANDBOX)
    requester = Requester(client(endpoint), options.project)
    if options.way == "post":
        reward = options.reward if options.reward is not None else price(options.seconds, options.wage)
        offer = Offer(reward=reward, countries=tuple(options.country), minutes=options.minutes, days=options.days)
        made = requester.post(options.link, offer, options.count)
        print(f"{len(made)} tasks at {reward:.2f} dollars are offered at {endpoint}")
    elif options.way == "list":
        waiting = requester.submitted()
        print(f"{sum(1 for _ in requester.tasks())} tasks; {len(waiting)} wait for approval")
    elif options.way == "approve":
        approved, doubtful = requester.approve(accepted_assignments(options.data))
        print(f"{len(approved)} assignments approved")
        if doubtful:
            print(f"{len(doubtful)} were submitted without an accepted task; judge them yourself: {' '.join(doubtful)}")
    else:
        print(f"{requester.end()} tasks withdrawn; what workers hold already stays theirs")
    return 0
