"""The grammar of the command line: commands, options, help. Nothing heavy is imported before a command runs."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from recsys import __version__
from recsys.errors import InvalidInput, Violation

if TYPE_CHECKING:
    from recsys.config import Settings

app = typer.Typer(
    name="recsys",
    help="LongRec: recommendations that remember. Begin with `recsys quickstart`.",
    epilog="Exit codes: 0 done, 1 failed, 2 wrong usage or input, 3 something is not installed.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode="rich",
)
config_app = typer.Typer(help="What is set, and where.", no_args_is_help=True)
token_app = typer.Typer(help="Tokens for callers of a server.", no_args_is_help=True)

START, LEARN, ASK, RUN, MOVE = "Start here", "Learn", "Ask", "Run", "Move data"
app.add_typer(config_app, name="config", rich_help_panel=RUN)
app.add_typer(token_app, name="token", rich_help_panel=RUN)

Json = Annotated[
    str | None,
    typer.Option("--json", metavar="FILE", help="Also write the result as JSON; - for standard output, and only that."),
]
Config = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", envvar="RECSYS_CONFIG", help="TOML file; ./longrec.toml if there is one."),
]
# The defaults themselves stand in `recsys.config`, which is too heavy to import for a help page.
SNAPSHOTS_DEFAULT, STORE_DEFAULT, PORT_DEFAULT = ".longrec/snapshots", ".longrec/events.sqlite", "50051"
Snapshots = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Folder of snapshots.", show_default=SNAPSHOTS_DEFAULT)
]
Store = Annotated[
    str | None,
    typer.Option(metavar="URL", help="Event store: a SQLite file, or postgresql://...", show_default=STORE_DEFAULT),
]
Port = Annotated[int | None, typer.Option(help="The server's port; 0 takes any free one.", show_default=PORT_DEFAULT)]
Target = Annotated[str | None, typer.Option(metavar="HOST:PORT", help="Ask this server instead of a snapshot here.")]
Protocol = Annotated[
    str | None,
    typer.Option(
        metavar="loo|gts", help="Leave-one-out or global time split; by default gts if events have timestamps."
    ),
]
TestDays = Annotated[float | None, typer.Option(min=0, help="gts: days asked as the test, at the end of the data.")]
ValidationDays = Annotated[float | None, typer.Option(min=0, help="gts: days before the test that stop the training.")]
Full = Annotated[
    bool | None, typer.Option("--full", help="Also train a history encoder: the best quality, some more minutes.")
]
Runs = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Keep the encoder's checkpoints and curves here, and resume from them."),
]
Lenient = Annotated[bool, typer.Option("--lenient", help="Leave bad rows out and say so, instead of refusing.")]
UserId = Annotated[str, typer.Option("--user", metavar="ID", help="Who asks; nobody known by default.")]
Events = Annotated[
    list[str] | None, typer.Option("--event", metavar="ITEM", help="An item met just now, oldest first; repeatable.")
]


@app.callback(invoke_without_command=True)
def _version(version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False) -> None:
    if version:
        typer.echo(f"recsys {__version__}")
        raise typer.Exit


@app.command(rich_help_panel=START)
def quickstart(
    data: Annotated[str | None, typer.Option(metavar="DIR", help="Your own data instead of the demo's films.")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Forget what an earlier quickstart learned.")] = False,
    config: Config = None,
    json: Json = None,
) -> None:
    """The whole way on real data: learn, evaluate, serve, ask, tell, ask again."""
    from recsys.cli.output import Output
    from recsys.cli.quickstart import quickstart

    quickstart(_settings(config), Output(json_to=json), data=data, fresh=fresh)


@app.command(rich_help_panel=START)
def doctor(config: Config = None, store: Store = None, port: Port = None, json: Json = None) -> None:
    """Check that everything is here that the engine needs."""
    from recsys.cli.doctor import doctor
    from recsys.cli.output import Output

    doctor(Output(json_to=json), config=config, flags={"paths.store": store, "server.port": port})


@app.command(rich_help_panel=LEARN)
def train(
    data: Annotated[str | None, typer.Argument(help="A folder, a file or a SQL URL; see docs/data.md.")] = None,
    from_store: Annotated[bool, typer.Option("--from-store", help="Learn from the event store instead.")] = False,
    further: Annotated[
        str | None,
        typer.Option(
            "--from", metavar="SNAPSHOT", help="Go on from this snapshot (or `current`) with DATA's new events."
        ),
    ] = None,
    replay: Annotated[float, typer.Option(min=0.0, max=0.99, help="--from: share of old events replayed.")] = 0.3,
    snapshots: Annotated[
        Path | None,
        typer.Option(
            "--snapshots",
            "--out",
            metavar="DIR",
            help="Folder of snapshots to publish into.",
            show_default=SNAPSHOTS_DEFAULT,
        ),
    ] = None,
    store: Store = None,
    protocol: Protocol = None,
    test_days: TestDays = None,
    validation_days: ValidationDays = None,
    full: Full = None,
    runs: Runs = None,
    measured: Annotated[bool, typer.Option("--evaluate/--no-evaluate", help="Also ask test and baselines.")] = True,
    lenient: Lenient = False,
    config: Config = None,
    json: Json = None,
) -> None:
    """Learn from events and items, and publish a snapshot."""
    from recsys.cli.learn import train, train_from
    from recsys.cli.output import Output

    settings = _settings(
        config,
        {
            "paths.snapshots": snapshots,
            "paths.store": store,
            "sequence.enabled": full,
            "sequence.runs": runs,
            "stages.test_days": test_days,
            "stages.validation_days": validation_days,
        },
    )
    if further is not None:
        _refuse(
            "--from",
            {
                "--full": full,
                "--runs": runs,
                "--protocol": protocol,
                "--test-days": test_days,
                "--validation-days": validation_days,
            },
        )
        train_from(
            settings,
            Output(json_to=json),
            snapshot=further,
            data=data,
            from_store=from_store,
            replay=replay,
            lenient=lenient,
        )
        return
    train(
        settings,
        Output(json_to=json),
        data=data,
        from_store=from_store,
        protocol=protocol,
        measured=measured,
        lenient=lenient,
    )


@app.command(rich_help_panel=LEARN)
def evaluate(
    data: Annotated[str, typer.Argument(help="A folder, a file or a SQL URL; see docs/data.md.")],
    protocol: Protocol = None,
    with_validation: Annotated[
        bool | None, typer.Option("--with-validation", help="loo: the test remembers the validation events, too.")
    ] = None,
    test_days: TestDays = None,
    validation_days: ValidationDays = None,
    full: Full = None,
    runs: Runs = None,
    ablate: Annotated[
        bool, typer.Option("--ablate", help="Also each signal alone, and rankers with and without each matcher.")
    ] = False,
    cold: Annotated[
        bool, typer.Option("--cold", help="Hide 5 % of the items from all training, and ask for them alone.")
    ] = False,
    shuffled_ties: Annotated[
        bool | None, typer.Option(help="Also with the order of equal times shuffled; by default where days are times.")
    ] = None,
    lenient: Lenient = False,
    config: Config = None,
    json: Json = None,
) -> None:
    """Train from scratch, ask validation and test once, and compare with baselines."""
    from recsys.cli.learn import judge, judge_cold
    from recsys.cli.output import Output

    settings = _settings(
        config,
        {
            "sequence.enabled": full,
            "sequence.runs": runs,
            "stages.with_validation": with_validation,
            "stages.test_days": test_days,
            "stages.validation_days": validation_days,
        },
    )
    if cold:
        _refuse("--cold", {"--ablate": ablate or None, "--shuffled-ties": shuffled_ties})
        judge_cold(settings, Output(json_to=json), data=data, protocol=protocol, lenient=lenient)
        return
    judge(
        settings,
        Output(json_to=json),
        data=data,
        protocol=protocol,
        shuffled_ties=shuffled_ties,
        ablate=ablate,
        lenient=lenient,
    )


@app.command(rich_help_panel=RUN)
def serve(
    snapshots: Snapshots = None,
    store: Store = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on; beyond loopback it wants TLS.")] = None,
    port: Port = None,
    insecure: Annotated[
        bool | None, typer.Option("--insecure", help="Plain text, or no credentials, beyond loopback.")
    ] = None,
    tls_certificate: Annotated[Path | None, typer.Option(metavar="FILE", help="PEM certificate chain.")] = None,
    tls_key: Annotated[Path | None, typer.Option(metavar="FILE", help="PEM private key, of mode 0600.")] = None,
    tls_client_ca: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Let only callers in that have a certificate of this authority.")
    ] = None,
    access: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Credentials, tenants and limits; see docs/security.md.")
    ] = None,
    health_port: Annotated[int | None, typer.Option(help="A second port, for health alone, in plain text.")] = None,
    admin_port: Annotated[
        int | None, typer.Option(help="An HTTP port on loopback for metrics and the memory page; none by default.")
    ] = None,
    tracing: Annotated[
        bool | None, typer.Option("--tracing", help="Send OpenTelemetry spans, as the OTEL_* variables say.")
    ] = None,
    reflection: Annotated[bool | None, typer.Option(help="Let clients list the services.")] = None,
    config: Config = None,
    json: Json = None,
) -> None:
    """Serve the current snapshot over gRPC until SIGTERM."""
    # What is imported and loaded now is there to stay: looking for garbage in it takes a fifth of the start.
    gc.disable()
    try:
        from recsys import _native

        with _native.without("sklearn", "pandas"):
            import lightgbm  # noqa: F401

        from recsys.cli.output import Output
        from recsys.cli.serving import serve

        flags = {
            "paths.snapshots": snapshots,
            "paths.store": store,
            "server.host": host,
            "server.port": port,
            "server.insecure": insecure,
            "server.tls_certificate_path": tls_certificate,
            "server.tls_key_path": tls_key,
            "server.tls_client_ca_path": tls_client_ca,
            "server.access_path": access,
            "server.health_port": health_port,
            "server.admin_http.port": admin_port,
            "server.tracing": tracing,
            "server.reflection": reflection,
        }
        serve(_settings(config, flags), Output(json_to=json))
    finally:
        gc.enable()


@app.command(rich_help_panel=ASK)
def recommend(
    user: UserId = "",
    event: Events = None,
    k: Annotated[int, typer.Option("-k", min=1, max=200, help="How many items.")] = 10,
    exclude: Annotated[list[str] | None, typer.Option(metavar="ITEM", help="Not this one; repeatable.")] = None,
    category: Annotated[list[str] | None, typer.Option(metavar="NAME", help="Only of these; repeatable.")] = None,
    include_seen: Annotated[
        bool | None,
        typer.Option("--include-seen/--exclude-seen", help="Items met before; by default as the data does."),
    ] = None,
    snapshots: Snapshots = None,
    store: Store = None,
    target: Target = None,
    config: Config = None,
    json: Json = None,
) -> None:
    """Find items for a user in the whole catalogue."""
    from recsys.cli.ask import recommend, user_of
    from recsys.cli.output import Output

    recommend(
        _settings(config, {"paths.snapshots": snapshots, "paths.store": store}),
        Output(json_to=json),
        target=target,
        user=user_of(user, event or ()),
        k=k,
        exclude=exclude or (),
        categories=category or (),
        include_seen=include_seen,
    )


@app.command(rich_help_panel=ASK)
def rank(
    items: Annotated[list[str] | None, typer.Argument(metavar="ITEM...", help="Item ids.", show_default=False)] = None,
    text: Annotated[list[str] | None, typer.Option(help="A candidate that is only a text; repeatable.")] = None,
    user: UserId = "",
    event: Events = None,
    top_k: Annotated[int, typer.Option(min=0, help="Show so many; 0 shows all.")] = 0,
    snapshots: Snapshots = None,
    store: Store = None,
    target: Target = None,
    config: Config = None,
    json: Json = None,
) -> None:
    """Order given items or texts for a user."""
    from recsys.cli.ask import rank, user_of
    from recsys.cli.output import Output

    rank(
        _settings(config, {"paths.snapshots": snapshots, "paths.store": store}),
        Output(json_to=json),
        target=target,
        user=user_of(user, event or ()),
        item_ids=items or (),
        texts=text or (),
        top_k=top_k,
    )


@app.command(rich_help_panel=ASK)
def explain(
    items: Annotated[list[str], typer.Argument(metavar="ITEM...", help="Item ids.")],
    user: UserId = "",
    event: Events = None,
    max_memories: Annotated[int, typer.Option(min=0, max=50, help="Events to name for each item.")] = 5,
    snapshots: Snapshots = None,
    store: Store = None,
    target: Target = None,
    config: Config = None,
    json: Json = None,
) -> None:
    """Say why items have their scores, and which of the user's events speak for them."""
    from recsys.cli.ask import explain, user_of
    from recsys.cli.output import Output

    explain(
        _settings(config, {"paths.snapshots": snapshots, "paths.store": store}),
        Output(json_to=json),
        target=target,
        user=user_of(user, event or ()),
        item_ids=items,
        max_memories=max_memories,
    )


@app.command("import", rich_help_panel=MOVE)
def import_(
    source: Annotated[str, typer.Argument(help="A folder, a file or a SQL URL; see docs/data.md.")],
    store: Store = None,
    lenient: Lenient = False,
    config: Config = None,
    json: Json = None,
) -> None:
    """Check events and items and write them into the event store; doing it twice changes nothing."""
    from recsys.cli.output import Output
    from recsys.cli.transfer import import_source

    import_source(_settings(config, {"paths.store": store}), Output(json_to=json), source=source, lenient=lenient)


@app.command(rich_help_panel=MOVE)
def export(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where events and items go.")],
    form: Annotated[str, typer.Option("--format", metavar="NAME", help="parquet, csv, jsonl or ndjson.")] = "parquet",
    from_store: Annotated[bool, typer.Option("--from-store", help="From the event store, not a snapshot.")] = False,
    snapshots: Snapshots = None,
    store: Store = None,
    config: Config = None,
    json: Json = None,
) -> None:
    """Write the events and items of a snapshot, or of the event store, to files."""
    from recsys.cli.output import Output
    from recsys.cli.transfer import export

    settings = _settings(config, {"paths.snapshots": snapshots, "paths.store": store})
    export(settings, Output(json_to=json), folder=folder, form=form, from_store=from_store)


_UserArgument = Annotated[str, typer.Argument(metavar="USER", help="The user's id.")]


@app.command("delete-user", rich_help_panel=MOVE)
def delete_user(
    user_id: _UserArgument,
    snapshots: Snapshots = None,
    store: Store = None,
    target: Target = None,
    config: Config = None,
    json: Json = None,
) -> None:
    """Erase a user from the event store, or from a server's answers, store and snapshots."""
    from recsys.cli.erasing import delete_user
    from recsys.cli.output import Output

    settings = _settings(config, {"paths.snapshots": snapshots, "paths.store": store})
    delete_user(settings, Output(json_to=json), user_id=user_id, target=target)


@app.command("export-user", rich_help_panel=MOVE)
def export_user(
    user_id: _UserArgument,
    file: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Where the lines go; else standard output.")
    ] = None,
    snapshots: Snapshots = None,
    store: Store = None,
    target: Target = None,
    config: Config = None,
) -> None:
    """Write all that is held of a user as JSON lines."""
    from recsys.cli.erasing import export_user
    from recsys.cli.output import Output

    settings = _settings(config, {"paths.snapshots": snapshots, "paths.store": store})
    export_user(settings, Output(), user_id=user_id, target=target, file=file)


@app.command(rich_help_panel=RUN)
def sweep(snapshots: Snapshots = None, store: Store = None, config: Config = None, json: Json = None) -> None:
    """Take what erased users left out of the store's files and the snapshots; a server does so by itself."""
    from recsys.cli.erasing import sweep
    from recsys.cli.output import Output

    sweep(_settings(config, {"paths.snapshots": snapshots, "paths.store": store}), Output(json_to=json))


@app.command(rich_help_panel=RUN)
def status(snapshots: Snapshots = None, target: Target = None, config: Config = None, json: Json = None) -> None:
    """Show the snapshots, their sizes, figures and soundness, or what a server serves."""
    from recsys.cli.output import Output
    from recsys.cli.status import status

    settings = _settings(config, {"paths.snapshots": snapshots})
    status(Output(json_to=json), root=settings.paths.snapshots, target=target)


_TokenFile = Annotated[Path, typer.Option("--file", metavar="FILE", help="The server's file of tokens.")]


@token_app.command("new")
def token_new(
    file: _TokenFile,
    tenant: Annotated[str, typer.Option(metavar="NAME", help="Whose data the token opens.")],
    scope: Annotated[list[str], typer.Option(metavar="NAME", help="rank, read, write, admin or erase; repeatable.")],
    days: Annotated[float | None, typer.Option(min=0, help="How long it holds; else until it is revoked.")] = None,
    json: Json = None,
) -> None:
    """Make a token and show it, once; the file keeps its hash."""
    from recsys.cli.output import Output
    from recsys.cli.tokens import new

    new(Output(json_to=json), file=file, tenant=tenant, scopes=scope, days=days)


@token_app.command("list")
def token_list(file: _TokenFile, json: Json = None) -> None:
    """Show which tokens there are."""
    from recsys.cli.output import Output
    from recsys.cli.tokens import show

    show(Output(json_to=json), file=file)


@token_app.command("revoke")
def token_revoke(
    token_id: Annotated[str, typer.Argument(metavar="ID", help="As `recsys token list` shows it.")],
    file: _TokenFile,
    json: Json = None,
) -> None:
    """Refuse a token from now on; a running server notices within a second."""
    from recsys.cli.output import Output
    from recsys.cli.tokens import revoke

    revoke(Output(json_to=json), file=file, token_id=token_id)


@app.command(rich_help_panel=RUN)
def activate(
    snapshot: Annotated[str, typer.Argument(help="Its id; `recsys status` lists them.")],
    force: Annotated[bool, typer.Option("--force", help="Do not compare its answers with those of today.")] = False,
    snapshots: Snapshots = None,
    target: Target = None,
    config: Config = None,
    json: Json = None,
) -> None:
    """Change a server over to a snapshot, once it answers what was asked of late; or name the one to start with."""
    from recsys.cli.changeover import activate
    from recsys.cli.output import Output

    settings = _settings(config, {"paths.snapshots": snapshots})
    activate(Output(json_to=json), root=settings.paths.snapshots, target=target, snapshot_id=snapshot, force=force)


@app.command(rich_help_panel=RUN)
def rollback(target: Annotated[str, typer.Option(metavar="HOST:PORT", help="The server.")], json: Json = None) -> None:
    """Let a server go back to the snapshot that served before, at once."""
    from recsys.cli.changeover import rollback
    from recsys.cli.output import Output

    rollback(Output(json_to=json), target=target)


@config_app.command("show")
def config_show(config: Config = None, json: Json = None) -> None:
    """Show each setting's value, and where it came from."""
    from recsys.cli.output import Output, table
    from recsys.config import load_settings, without_password

    output = Output(json_to=json)
    origins = {key: (without_password(value), origin) for key, (value, origin) in load_settings(config).origins.items()}
    output.show(table(("key", "value", "from"), [(key, value, origin) for key, (value, origin) in origins.items()]))
    output.result({key: {"value": value, "from": origin} for key, (value, origin) in origins.items()})


def _refuse(flag: str, others: dict[str, Any]) -> None:
    """A flag that would be ignored is an error: whoever gave it expects something of it."""
    for name, value in others.items():
        if value is not None:
            raise InvalidInput.of(name, value, f"has no effect with {flag}")


def _settings(path: Path | None, flags: dict[str, Any] | None = None) -> Settings:
    from recsys.config import load_settings, without_password

    store = (flags or {}).get("paths.store")
    if without_password(store) != store:
        reason = "a password among the arguments is seen by all of this machine: set RECSYS_PATHS__STORE instead"
        raise InvalidInput.of("--store", without_password(store), reason)
    try:
        return load_settings(path, flags).settings
    except InvalidInput as error:
        raise InvalidInput([_with_flags(each) for each in error.violations]) from error


def _with_flags(violation: Violation) -> Violation:
    """The settings know nothing of flags; whoever typed one wants to read which one helps."""
    flags = {
        "host": "plain text beyond loopback needs --insecure, or TLS: --tls-certificate and --tls-key",
        "access_path": "calls from beyond loopback need credentials: --access, or --insecure",
    }
    return Violation(violation.field, violation.value, flags.get(violation.field, violation.reason))
