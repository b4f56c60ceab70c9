use serde_json::{Map, Value, json};

use super::command::{Arg, CommandError, CommandSpec, Commands};
use crate::config::{Config, OptionDiff};
use crate::context::WeakContext;
use crate::{ConfigError, Context};

const VAR: &[Arg] = &[Arg::required("var")];

/// The commands by which options are looked at and changed.
pub(crate) fn register(commands: &Commands, context: &WeakContext) {
    let add = |prefix, args, help, run: fn(&Context, &Input) -> Result<Value, CommandError>| {
        let context = context.clone();
        commands.register(CommandSpec { prefix, args, help }, move |request| {
            // Whoever answers holds one.
            let context = context.upgrade().ok_or_else(|| {
                CommandError::new(CommandError::NOT_FOUND, "the process is about to end")
            })?;
            let input = |name| request.get(name);
            run(
                &context,
                &Input { var: input("var"), val: input("val"), args: input("injected_args") },
            )
        });
    };
    add("config show", &[], "dump current config settings", |context, _| {
        let config = context.config();
        Ok(config.show().map(|(name, value)| (name.to_owned(), json!(value))).collect())
    });
    add("config get", VAR, "config get <field>: get the config value", |context, input| {
        let option = Config::honoured(input.var()?).map_err(refused)?;
        let value = context.config().show().find(|(name, _)| *name == option.name);
        Ok(json!({ option.name: value.map(|(_, value)| value) }))
    });
    add(
        "config set",
        const { &[Arg::required("var"), Arg::many("val")] },
        "config set <field> <val> [<val> ...]: set a config variable",
        |context, input| {
            let value = input.val.as_deref().unwrap_or_default();
            context.set_option(input.var()?, value).map_err(refused)?;
            Ok(json!({ "success": "" }))
        },
    );
    add("config unset", VAR, "config unset <field>: unset a config variable", |context, input| {
        context.unset_option(input.var()?).map_err(refused)?;
        Ok(json!({}))
    });
    add("config diff", &[], "dump diff of current config and default config", |context, _| {
        Ok(json!({ "diff": context.config().diff().map(named).collect::<Map<_, _>>() }))
    });
    add(
        "config diff get",
        VAR,
        "dump diff get <field>: dump diff of current and default config setting <field>",
        |context, input| {
            let option = Config::honoured(input.var()?).map_err(refused)?;
            let config = context.config();
            let changed = config.diff().filter(|it| it.option.name == option.name);
            Ok(json!({ "diff": changed.map(named).collect::<Map<_, _>>() }))
        },
    );
    add(
        "config help",
        const { &[Arg::optional("var")] },
        "get config setting schema and descriptions",
        |_, input| match &input.var {
            Some(var) => {
                Ok(json!({ "option": Config::honoured(var).map_err(refused)?.to_json(false) }))
            }
            None => {
                let options: Vec<_> = Config::options().map(|it| it.to_json(false)).collect();
                Ok(json!({ "options": options }))
            }
        },
    );
    add(
        "injectargs",
        const { &[Arg::many("injected_args")] },
        "inject configuration arguments into running daemon",
        |context, input| {
            let injected = context.inject_args(input.args.as_deref().unwrap_or_default());
            injected.map_err(|error| match error {
                // As Ceph has it, for which that is no option but a word too many.
                ConfigError::UnknownOption { .. } => CommandError::invalid(error.to_string()),
                error => refused(error),
            })?;
            Ok(json!({}))
        },
    );
}

/// What a request says.
struct Input {
    var: Option<String>,
    val: Option<String>,
    args: Option<String>,
}

impl Input {
    fn var(&self) -> Result<&str, CommandError> {
        self.var.as_deref().ok_or_else(|| CommandError::invalid("the argument var is missing"))
    }
}

fn refused(error: ConfigError) -> CommandError {
    CommandError::new(error.errno(), error.to_string())
}

fn named(changed: OptionDiff) -> (String, Value) {
    (changed.option.name.to_owned(), changed.to_json())
}
