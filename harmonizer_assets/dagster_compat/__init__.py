"""Every use of a Dagster internal, and nothing else.

The rest of the package uses Dagster beyond its public API through this package only, under names
of our own. The test of the adapter `x` is `harmonizer_tests/dagster/compat/test_x.py`. It uses the
installed Dagster, so that it fails when the internal changes; `make compat-newest` runs these tests
with the newest Dagster. `test_internals.py` beside them keeps this table complete.

==================== =================================== ========================================
adapter              internal                            why there is no public way
==================== =================================== ========================================
`events`             `store_event_batch` of event logs   Events of a step are stored one by one
                                                         unless the environment says otherwise.
`event_log`          SqlEventLogStorage,                 Storages are named by class, none of them
                     SqliteEventLogStorage,              is public, and none stores planned events
                     SqlEventLogStorageTable,            in batches or keeps SQLite files open.
                     ConfigurableClassData,
                     INDEX_SHARD_NAME
`event_log_postgres` ConfigurableClassData,              As above.
                     SqlEventLogStorageTable
`event_texts`        SqlEventLogStorageMetadata,         Events can be deleted with their run, and
                     RunStorageSqlMetadata,              not changed. Their tables are read, and the
                     ScheduleStorageSqlMetadata,         JSON in them.
                     SqlEventLogStorage,
                     SqlRunStorage, SqlScheduleStorage
`instance`           NoOpComputeLogManager               It is named in configuration; no setting
                                                         switches the capture of output off.
`materializations`   CODE_VERSION_TAG,                   A result of a step is for one partition or
                     DATA_VERSION_TAG,                   a range of them, not for scattered ones
                     NULL_DATA_VERSION,                  with metadata each. What is reported
                     AssetMaterializationPlannedData,    instead needs the tags that Dagster adds
                     StepMaterializationData,            to results.
                     extract_data_version_from_entry,
                     get_input_data_version_tag,
                     get_input_event_pointer_tag,
                     get_tags_from_multi_partition_key
`postgres`           EventLogStorage, RunStorage,         Storages are named by class, and none of
                     ScheduleStorage,                    them waits for a server that is restarted.
                     ConfigurableClassData
`retention`          AssetCheckExecutionsTable,          Only whole runs can be deleted, and with
                     AssetEventTagsTable,                them what the UI shows of partitions.
                     JobTickTable, RunTagsTable,
                     SqlEventLogStorage,
                     SqlEventLogStorageTable,
                     SqlRunStorage, SqlScheduleStorage
`run_coordinator`    `_instance` of coordinators         How a run is retried is a tag of the run,
                                                         and no setting gives runs of the UI tags.
`run_health`         BulkActionStatus,                   Only the daemon decides whether a run is to
                     DagsterGrpcClient,                  be retried, how its backfill stands, and
                     RunFailureReason,                   whether its code server answers.
                     auto_reexecution_should_retry_run
`run_ids`            The form of run ids.                Dagster's own function is private.
`run_launcher`       CheckRunHealthResult,               Public methods take and return them; they
                     LaunchRunContext, WorkerStatus      are private all the same.
`tags`               Names of tags.                      Dagster's own constants are private.
`web_server`         `open_ipc_subprocess` of            Nothing lets a program put a guard before
                     `dagster._cli.dev`,                 the web server that `dagster dev` starts.
                     `create_app_from_workspace_process_context` of `dagster_webserver.cli`
==================== =================================== ========================================
"""
