"""What `deploy/aws` holds: a template that is valid and can be created as far as moto can, and an
instance of Dagster that works with PostgreSQL, S3 and ECS."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import sysconfig
import threading
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from uuid import uuid4

import boto3
import pytest
from cfnlint.decode import cfn_yaml
from dagster import DagsterInstance, DagsterRunStatus
from dagster._core.test_utils import in_process_test_workspace
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin

from harmonizer_assets.core.base.home import Home
from harmonizer_assets.core.base.settings import Settings
from harmonizer_assets.core.judge.llm.memory.shared.sharing import open_cache
from harmonizer_assets.core.units.executors.brokers import broker_of
from harmonizer_assets.core.units.executors.celery import make_app
from harmonizer_assets.definitions import build_definitions
from harmonizer_tests.support.aws import aws_server
from harmonizer_tests.support.environment import use_aws

AWS = Path(__file__).parents[2] / "deploy" / "aws"
STACK = "labels"
IMAGE = "123456789012.dkr.ecr.us-east-1.amazonaws.com/label-harmonizer:1"
ECS_TAG = re.compile(r"[\w\s+\-=.:/@]*")
"""What tags of ECS may hold."""
ECS_OVERRIDES = 8_192
"""Characters that ECS takes of what a task does otherwise than its definition says."""


@pytest.fixture
def aws(monkeypatch) -> Iterator[str]:
    use_aws(monkeypatch)
    with aws_server(empty=True) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        yield url


def create(**parameters: str) -> dict[str, str]:
    """Create the stack; return the physical ids of what moto has made, by their names."""
    ec2, stacks = boto3.client("ec2"), boto3.client("cloudformation")
    vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    subnets = [
        ec2.create_subnet(VpcId=vpc, CidrBlock=f"10.0.{i}.0/24", AvailabilityZone=f"us-east-1{z}")
        for i, z in enumerate("ab")
    ]
    given = {
        "VpcId": vpc,
        "Subnets": ",".join(made["Subnet"]["SubnetId"] for made in subnets),
        "Image": IMAGE,
        **parameters,
    }
    template = (AWS / "template.yaml").read_text()
    stacks.create_stack(
        StackName=STACK,
        # moto does not say where a database is.
        TemplateBody=template.replace("!GetAtt Database.Endpoint.Address", "database.internal"),
        Capabilities=["CAPABILITY_IAM"],
        Parameters=[{"ParameterKey": k, "ParameterValue": v} for k, v in given.items()],
    )
    listed = stacks.list_stack_resources(StackName=STACK)["StackResourceSummaries"]
    return {
        made["LogicalResourceId"]: made["PhysicalResourceId"]
        for made in listed
        if made["LogicalResourceId"]
    }


def test_the_template_is_valid():
    command = Path(sysconfig.get_path("scripts"), "cfn-lint")
    done = subprocess.run(
        [command, AWS / "template.yaml", "--regions", "us-east-1", "eu-central-1"],
        check=False,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.usefixtures("aws")
def test_the_stack_is_created_with_what_the_package_expects():
    made = create()
    encryption = boto3.client("s3").get_bucket_encryption(Bucket=made["Bucket"])
    assert "AES256" in str(encryption["ServerSideEncryptionConfiguration"])
    ecs = boto3.client("ecs")
    [home, workers] = (
        ecs.describe_services(cluster=STACK, services=[name])["services"][0]
        for name in ("home", "workers")
    )
    assert home["desiredCount"] == 1
    assert workers["desiredCount"] == 0


def resources(kind: str) -> list[dict[str, object]]:
    """The properties of all resources of a kind, as the template has them."""
    found = cfn_yaml.load(AWS / "template.yaml")["Resources"].values()
    return [resource["Properties"] for resource in found if resource["Type"] == kind]


def test_nothing_is_open_to_the_world():
    groups = resources("AWS::EC2::SecurityGroup")
    rules = [rule for group in groups for rule in group.get("SecurityGroupIngress", ())]
    assert rules
    assert all({*rule} & {"CidrIp", "CidrIpv6"} == set() for rule in rules)
    [bucket] = resources("AWS::S3::Bucket")
    assert len(bucket["PublicAccessBlockConfiguration"]) == 4
    assert all(bucket["PublicAccessBlockConfiguration"].values())
    [database] = resources("AWS::RDS::DBInstance")
    assert database["PubliclyAccessible"] is False
    for service in resources("AWS::ECS::Service"):
        network = service["NetworkConfiguration"]["AwsvpcConfiguration"]
        assert network["AssignPublicIp"] == "DISABLED"


def test_no_two_tasks_of_the_service_mount_the_home():
    [home] = [one for one in resources("AWS::ECS::Service") if one["ServiceName"] == "home"]
    assert home["DesiredCount"] == 1
    assert home["DeploymentConfiguration"] == {"MaximumPercent": 100, "MinimumHealthyPercent": 0}
    mounting = [task for task in resources("AWS::ECS::TaskDefinition") if "Volumes" in task]
    assert len(mounting) == 1


def test_roles_may_do_what_is_named_and_no_more():
    policies = [
        policy["PolicyDocument"]
        for role in resources("AWS::IAM::Role")
        for policy in role.get("Policies", ())
    ]
    for kind in ("AWS::IAM::RolePolicy", "AWS::IAM::ManagedPolicy"):
        policies += [policy["PolicyDocument"] for policy in resources(kind)]
    for statement in (one for policy in policies for one in policy["Statement"]):
        actions = statement["Action"]
        names = [actions] if isinstance(actions, str) else actions
        assert not [name for name in names if "*" in name]
        # Rights that IAM does not know for single resources.
        if statement["Resource"] == "*":
            assert all(re.match("ssmmessages:|ecs:Describe|ec2:Describe", name) for name in names)


@pytest.mark.usefixtures("aws")
def test_the_queue_of_the_stack_is_what_the_package_would_have_made():
    made = create()
    sqs = boto3.client("sqs")

    def attributes() -> dict[str, str]:
        names = ["VisibilityTimeout", "RedrivePolicy"]
        return sqs.get_queue_attributes(QueueUrl=made["Units"], AttributeNames=names)["Attributes"]

    stacked = attributes()
    units = Settings().units
    broker = broker_of("sqs://", f"{STACK}-units", units.attempts, units.seconds)
    broker.declare(make_app(broker))
    sqs.delete_queue(QueueUrl=made["Units"])
    declared = broker_of("sqs://", f"{STACK}-units", units.attempts, units.seconds)
    declared.declare(make_app(declared))
    assert len(sqs.list_queues()["QueueUrls"]) == 2
    ours = attributes()
    assert stacked["VisibilityTimeout"] == ours["VisibilityTimeout"]
    assert json.loads(stacked["RedrivePolicy"]) == json.loads(ours["RedrivePolicy"])


@pytest.mark.usefixtures("aws")
def test_the_stack_with_a_function_has_no_workers():
    made = create(Executor="lambda")
    assert "WorkerService" not in made
    function = boto3.client("lambda").get_function(FunctionName=f"{STACK}-units")["Configuration"]
    stores = function["Environment"]["Variables"]["HARMONIZER_UNIT_STORES"]
    assert stores == f"s3://{made['Bucket']}/units"


def container(made: dict[str, str]) -> dict[str, object]:
    """The container that mounts the home, as the stack defines it."""
    described = boto3.client("ecs").describe_task_definition(taskDefinition=made["HomeTask"])
    [one] = described["taskDefinition"]["containerDefinitions"]
    return one


def start(made, home, postgres_url, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command as the container of the home would, with this home and this database."""
    defined = {entry["name"]: entry["value"] for entry in container(made)["environment"]}
    here = {
        "HARMONIZER_HOME": str(home.root),
        "DAGSTER_PG_URL": postgres_url,
        "DATABASE_PASSWORD": "hidden",
        # The server of these tests offers no encryption.
        "PGSSLMODE": "prefer",
        "PATH": os.pathsep.join([sysconfig.get_path("scripts"), os.environ["PATH"]]),
    }
    [entry_point] = container(made)["entryPoint"]
    done = subprocess.run(
        [AWS / Path(str(entry_point)).name, *command],
        env={**os.environ, **defined, **here},
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done


@contextmanager
def started_instance(made, home, postgres_url, monkeypatch) -> Iterator[DagsterInstance]:
    """The instance of a home that a task of the stack has begun to use."""
    said = start(made, home, postgres_url, "env").stdout
    variables = dict(line.split("=", 1) for line in said.splitlines() if "=" in line)
    for name in ("DAGSTER_HOME", "DAGSTER_PG_URL", "BUCKET", "TASK_DEFINITION"):
        if name in variables:
            monkeypatch.setenv(name, variables[name])
    with DagsterInstance.get() as instance:
        yield instance


@pytest.mark.usefixtures("aws")
def test_the_home_of_a_task_is_on_postgres_and_its_logs_are_in_the_bucket(
    home, postgres_url, monkeypatch
):
    # Logs are written to a folder of all runs first, and would be added to those of another one.
    run = uuid4().hex
    made = create()
    with started_instance(made, home, postgres_url, monkeypatch) as instance:
        assert type(instance.run_launcher).__name__ == "WatchedRunLauncher"
        assert type(instance.run_storage).__name__ == "PatientRunStorage"
        with instance.compute_log_manager.capture_logs([run, "compute_logs", "step"]):
            print("a step says this")
    [log] = boto3.resource("s3").Bucket(made["Bucket"]).objects.all()
    assert log.key == f"compute-logs/storage/{run}/compute_logs/step.out"
    assert log.get()["Body"].read() == b"a step says this\n"
    settings = Settings.load(home.settings_file).units
    assert (settings.executor, settings.queue) == ("celery", f"{STACK}-units")
    assert settings.store == f"s3://{made['Bucket']}/units"
    # Units lie ready while as many workers as there may be are busy.
    assert settings.most_waiting == 2 * 10
    answers = Settings.load(home.settings_file).judge.answers
    assert answers is not None
    open_cache(answers).close()


@pytest.mark.usefixtures("aws")
def test_a_task_keeps_the_settings_of_the_home(home, postgres_url):
    made = create()
    home.settings_file.write_text('[units]\nexecutor = "inline"\n')
    start(made, home, postgres_url, "true")
    assert tomllib.loads(home.settings_file.read_text()) == {"units": {"executor": "inline"}}


@pytest.mark.usefixtures("aws")
def test_a_home_with_a_function_invokes_it_as_often_at_once_as_is_reserved(home, postgres_url):
    made = create(Executor="lambda", MaxWorkers="7")
    start(made, home, postgres_url, "true")
    settings = Settings.load(home.settings_file).units
    assert (settings.executor, settings.function) == ("lambda", f"{STACK}-units")
    assert settings.most_waiting == 7


@contextmanager
def metadata_of(cluster: str, task: str) -> Iterator[str]:
    """What ECS tells a container about its own task."""

    class Metadata(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps({"Cluster": cluster, "TaskARN": task}).encode())

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Metadata) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def running_home(made: dict[str, str]) -> str:
    """Start the task of the web UI, as its service does; return its ARN."""
    service = boto3.client("ecs").describe_services(cluster=STACK, services=["home"])
    return boto3.client("ecs").run_task(
        cluster=STACK,
        taskDefinition=made["HomeTask"],
        launchType="FARGATE",
        networkConfiguration=service["services"][0]["networkConfiguration"],
    )["tasks"][0]["taskArn"]


@pytest.mark.usefixtures("aws")
def test_a_run_is_started_as_a_task_whose_command_executes_it(home, postgres_url, monkeypatch):
    made = create(Runs="tasks")
    task = running_home(made)
    monkeypatch.setenv("HARMONIZER_HOME", str(home.root))
    code = LoadableTargetOrigin(
        executable_path=sys.executable, module_name="harmonizer_assets.definitions"
    )
    with (
        metadata_of(STACK, task) as metadata,
        started_instance(made, home, postgres_url, monkeypatch) as instance,
        in_process_test_workspace(instance, code, container_image=IMAGE) as workspace,
    ):
        monkeypatch.setenv("ECS_CONTAINER_METADATA_URI_V4", metadata)
        run = launched(instance, workspace)
        [started] = boto3.client("ecs").describe_tasks(
            cluster=STACK,
            tasks=[instance.get_run_by_id(run.run_id).tags["ecs/task_arn"]],
            include=["TAGS"],
        )["tasks"]
        assert started["taskDefinitionArn"] == made["HomeTask"]
        tags = {tag["key"]: tag["value"] for tag in started["tags"]}
        assert tags["dagster/run_id"] == run.run_id
        assert all(ECS_TAG.fullmatch(f"{key}{value}") for key, value in tags.items())
        assert len(json.dumps(started["overrides"])) < ECS_OVERRIDES
        [override] = started["overrides"]["containerOverrides"]
        start(made, home, postgres_url, *override["command"])
        assert instance.get_run_by_id(run.run_id).status == DagsterRunStatus.SUCCESS


def launched(instance, workspace):
    """A run with the tags of one of a partition, which the launcher was told to start."""
    [location] = workspace.code_locations
    [repository] = location.get_repositories().values()
    remote = repository.get_full_job("prune_home")
    run = instance.create_run_for_job(
        build_definitions(Home.resolve()).resolve_job_def("prune_home"),
        tags={"dagster/partition": "DATE|alpha-mart-604d5ae3"},
        remote_job_origin=remote.get_remote_origin(),
        job_code_origin=remote.get_python_origin(),
    )
    instance.launch_run(run.run_id, workspace)
    return run
