"""CUDA graphs in Triton's native TensorRT backend: were they captured, and does a request launch one?"""

from benchmarks.gpu_day import graph_log
from benchmarks.gpu_day.checks import answers, offline
from benchmarks.gpu_day.day import Day
from benchmarks.gpu_day.record import Record, SkippedError
from benchmarks.gpu_day.serving import serving
from contracts import bundle, model_config


def look(day: Day, record: Record) -> None:
    """Serve with a verbose log; hold what it says to config.pbtxt, and one request after another to it.

    Raises:
        SkippedError: config.pbtxt asks for none.
    """
    release = offline.served(day)
    folder = bundle.at(release.directory).models[release.model]
    config = model_config.read(folder / model_config.FILE_NAME)
    wanted = sorted(spec.batch_size for spec in config.optimization.cuda.graph_spec)
    if not config.optimization.cuda.graphs:
        raise SkippedError(f"{release.model}'s config.pbtxt asks for no CUDA graphs")
    with serving(day, "graphs", "--log-verbose", "1") as server:
        loaded = graph_log.read(server.log())
        sent = answers.requests(server, release)
        answers.one_at_a_time(server, sent)
        after = graph_log.read(server.log())
    record.figure(captured=[{"instance": i, "batch": b, "times": n} for (i, b), n in loaded.captured.items()])
    told = f"batches {loaded.batches} in {len(loaded.instances)} instances, config.pbtxt: {wanted}"
    every = all((instance, batch) in loaded.captured for instance in loaded.instances for batch in wanted)
    record.check("every graph was captured, in every instance", bool(loaded.captured) and every, told)
    record.check("no capture failed", not after.failures, "; ".join(after.failures[:3]))
    launched, without = after.launched - loaded.launched, after.executed - loaded.executed
    record.figure(launched=launched, executed_without=without)
    told = f"{launched} of {launched + without} executions of batches {', '.join(map(str, sent))}"
    record.check("every request launched a graph", launched > 0 and not without, told)
