"""What stands in for `wandb` and `mlflow` where a test must not hang on them: modules that hold what they were told."""

import types


def wandb(runs):
    """A stand-in for wandb; `runs`: {id: {"steps": told of, "ends": exit codes, "asked": arguments of `init`}}."""
    module = types.ModuleType("wandb")

    class Run:
        def __init__(self, told):
            self._told = told

        def log(self, values, step):
            self._told["steps"].append(step)

        def finish(self, exit_code):
            self._told["ends"].append(exit_code)

    def init(**asked):
        assert asked["resume"] == "allow"
        told = runs.setdefault(asked["id"], {"steps": [], "ends": []})
        told["asked"] = asked
        return Run(told)

    module.init, module.Settings = init, dict
    return module


def mlflow(runs):
    """A stand-in for mlflow; `runs` as of `wandb`, its ends the states."""
    module = types.ModuleType("mlflow")

    class MlflowClient:
        def __init__(self, tracking_uri):
            self.uri = tracking_uri

        def get_experiment_by_name(self, name):
            return None

        def create_experiment(self, name):
            return f"experiment of {name}"

        def create_run(self, experiment_id, run_name, tags):
            name = f"run {len(runs)}"
            runs[name] = {"steps": [], "ends": [], "asked": {"experiment": experiment_id, "name": run_name}}
            return types.SimpleNamespace(info=types.SimpleNamespace(run_id=name))

        def update_run(self, run_id, status):
            runs[run_id]["ends"].append(status)

        def log_batch(self, run_id, metrics=(), params=()):
            runs[run_id]["asked"].update(params)
            runs[run_id]["steps"] += sorted({step for _, _, _, step in metrics})

        def set_terminated(self, run_id, status):
            runs[run_id]["ends"].append(status)

    module.MlflowClient = MlflowClient
    module.entities = types.SimpleNamespace(Param=lambda name, value: (name, value), Metric=lambda *values: values)
    return module
