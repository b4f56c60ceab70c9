use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

/// What the guest tells its programs about itself: tests that need the machine must not skip in it.
pub(super) const IN_GUEST: &str = "SIPHON_RDMA_VM";

/// A command with its folder and its environment, which the guest runs as if it were called here.
pub(super) struct Job<'a> {
    pub(super) command: &'a [OsString],
    pub(super) dir: &'a Path,
    pub(super) environment: Vec<(OsString, OsString)>,
}

impl Job<'_> {
    /// A script for sh(1). Its exit code is the command's; 125 if there is no such folder, 126 and
    /// 127 if the command cannot be executed or found.
    pub(super) fn script(&self) -> OsString {
        let mut script = OsString::from("exec env -i --chdir=");
        script.push(quoted(self.dir.as_os_str()));
        for (name, value) in &self.environment {
            script.push(" ");
            script.push(quoted(name));
            script.push("=");
            script.push(quoted(value));
        }
        script.push(format!(" {IN_GUEST}=1"));
        for word in self.command {
            script.push(" ");
            script.push(quoted(word));
        }
        script.push("\n");
        script
    }
}

/// Quotes a word for a shell: in single quotes nothing has a meaning but themselves.
pub(super) fn quoted(word: &OsStr) -> OsString {
    let mut quoted = b"'".to_vec();
    for byte in word.as_bytes() {
        match byte {
            b'\'' => quoted.extend(br"'\''"),
            byte => quoted.push(*byte),
        }
    }
    quoted.push(b'\'');
    OsString::from_vec(quoted)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn run(command: &[&str], dir: &str, environment: &[(&str, &str)]) -> std::process::Output {
        let command: Vec<OsString> = command.iter().map(OsString::from).collect();
        let environment =
            environment.iter().map(|(name, value)| (name.into(), value.into())).collect();
        let job = Job { command: &command, dir: Path::new(dir), environment };
        Command::new("sh").arg("-c").arg(job.script()).output().unwrap()
    }

    #[test]
    fn words_arrive_as_they_are() {
        let words = ["a b", "it's", "", "$HOME", "`x`", "\\", "line\nbreak", "-n", "*"];
        let mut command = vec!["/usr/bin/printf", "%s|"];
        command.extend(words);
        let output = run(&command, "/", &[]);
        assert_eq!(String::from_utf8(output.stdout).unwrap(), words.join("|") + "|");
    }

    #[test]
    fn folder_and_environment_are_those_of_the_job() {
        let script = "pwd; echo \"$A\"; env | wc -l; echo $SIPHON_RDMA_VM";
        let variables = [("A", "1 '2"), ("PATH", "/usr/bin:/bin"), ("not a name", "x")];
        let output = run(&["sh", "-c", script], "/usr", &variables);
        // The shell adds PWD, OLDPWD or _ as it likes, but ours are there and none of the test's.
        let text = String::from_utf8(output.stdout).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!((lines[0], lines[1], lines[3]), ("/usr", "1 '2", "1"));
        assert!(lines[2].trim().parse::<u32>().unwrap() < 8, "{text}");
    }

    #[test]
    fn exit_codes_are_told_apart() {
        let path = [("PATH", "/usr/bin:/bin")];
        let code = |command, dir| run(command, dir, &path).status.code().unwrap();
        assert_eq!(code(&["sh", "-c", "exit 7"], "/"), 7);
        assert_eq!(code(&["true"], "/no/such/folder"), 125);
        assert_eq!(code(&["/usr"], "/"), 126);
        assert_eq!(code(&["no-such-program"], "/"), 127);
    }
}
