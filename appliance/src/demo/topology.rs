//! The network of a demo: a client, a server, the simulated load balancer between them, and the
//! appliance beside that. Each has a namespace of its own; the host's network is not changed.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use ring::rand::{SecureRandom as _, SystemRandom};

use super::child::{self, Child};
use super::error::{DemoError, system};
use super::launch;
use super::namespace::Namespace;
use super::readings::Readings;
use super::relay;
use super::stop::Stop;
use super::workspace::Workspace;

/// Address of the client.
pub(crate) const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 10);
/// Address of the attacker, who shares the client's network.
pub(crate) const ATTACKER: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 66);
/// Address in that network that no host has: the attacker forges it.
pub(crate) const NOBODY: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 99);
/// Address of the server.
pub(crate) const SERVER: Ipv4Addr = Ipv4Addr::new(10, 2, 0, 20);
/// Largest number of half-open sessions of a source in the demo's configuration.
pub(crate) const HALF_OPEN: u64 = 64;
/// Largest inner packet, as behind a Gateway Load Balancer.
const INNER_MTU: u16 = 8500;
/// MTU of the path to the appliance: the tunnel takes 68 bytes.
const OUTER_MTU: u16 = INNER_MTU + 68;
/// Longest time until a part is ready.
const READY: Duration = Duration::from_secs(15);

/// The network with its running programs. Dropping it ends everything.
#[derive(Debug)]
pub(crate) struct Topology {
    /// The program under demonstration.
    pub(crate) appliance: Child,
    /// The simulated load balancer.
    pub(crate) balancer: Child,
    /// Namespace of the client and the attacker.
    pub(crate) client: Namespace,
    /// Namespace of the server.
    pub(crate) server: Namespace,
    /// Requests to the appliance.
    pub(crate) readings: Readings,
    /// Pages of the appliance.
    pub(crate) pages: Pages,
    /// The folder; last, since programs write to it until they end.
    pub(crate) workspace: Workspace,
}

impl Topology {
    /// Creates the network and starts its programs.
    ///
    /// # Errors
    /// Returns an error if a part cannot be created, or is not ready in time; then nothing of the
    /// network remains.
    pub(crate) fn new(stop: &Stop) -> Result<Self, DemoError> {
        let workspace = Workspace::new()?;
        let setup = Setup {
            stop,
            workspace: &workspace,
        };
        let [client, server] = [Namespace::new("client")?, Namespace::new("server")?];
        let [middle, host] = [Namespace::new("balancer")?, Namespace::new("appliance")?];
        for namespace in [&client, &server, &middle, &host] {
            setup.ip(namespace, "link set lo up")?;
        }
        setup.join(&middle, &host)?;
        let pages = Pages {
            metrics_port: setup.relay(&host)?,
            console_port: setup.relay(&host)?,
            token: token()?,
        };
        let (appliance, readings) = setup.appliance(&host, &pages)?;
        let balancer = setup.balancer(&middle, &client, &server)?;
        Ok(Self {
            appliance,
            balancer,
            client,
            server,
            readings,
            pages,
            workspace,
        })
    }

    /// Fails if the appliance or the load balancer has ended.
    ///
    /// # Errors
    /// Returns an error with the last messages of an ended program.
    pub(crate) fn check(&mut self) -> Result<(), DemoError> {
        self.appliance.check()?;
        self.balancer.check()
    }
}

/// Pages of the appliance, at ports of the host's loopback address.
#[derive(Debug)]
pub(crate) struct Pages {
    pub(crate) metrics_port: u16,
    pub(crate) console_port: u16,
    /// Token of the console.
    pub(crate) token: String,
}

/// Steps that create the network.
struct Setup<'a> {
    stop: &'a Stop,
    workspace: &'a Workspace,
}

impl Setup<'_> {
    /// Runs `ip` with these arguments in a namespace.
    fn ip(&self, namespace: &Namespace, arguments: &str) -> Result<(), DemoError> {
        let mut command = launch::inside(namespace, "ip")?;
        command.args(arguments.split_whitespace());
        child::run("ip", &mut command, self.workspace.folder(), self.stop)
    }

    /// Joins the load balancer and the appliance.
    fn join(&self, middle: &Namespace, host: &Namespace) -> Result<(), DemoError> {
        let peer = host.path().display().to_string();
        let pair = format!(
            "link add wire mtu {OUTER_MTU} type veth peer name wire mtu {OUTER_MTU} netns {peer}"
        );
        self.ip(middle, &pair)?;
        self.ip(middle, "addr add 10.0.0.1/24 dev wire")?;
        self.ip(host, "addr add 10.0.0.2/24 dev wire")?;
        self.ip(middle, "link set wire up")?;
        self.ip(host, "link set wire up")
    }

    /// Relays a free port of the host's loopback address to the port of that number in the
    /// appliance's namespace, and returns it.
    fn relay(&self, host: &Namespace) -> Result<u16, DemoError> {
        self.stop.check()?;
        let what = "port at the loopback address";
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(system(what))?;
        let port = listener.local_addr().map_err(system(what))?.port();
        relay::start(listener, host, port)?;
        Ok(port)
    }

    /// Starts the appliance and waits until it serves packets.
    fn appliance(&self, host: &Namespace, pages: &Pages) -> Result<(Child, Readings), DemoError> {
        let folder = self.workspace.folder();
        let file = folder.join("portcullis.toml");
        let control = folder.join("control");
        let token = folder.join("token");
        let text = configuration(&control, &token, pages);
        fs::write(&file, text).map_err(system(file.display().to_string()))?;
        private(&token, &pages.token).map_err(system(token.display().to_string()))?;
        let mut command = launch::inside(host, launch::program()?)?;
        command.arg("run").arg(&file).stdout(Stdio::null());
        let mut appliance = Child::start("appliance", &mut command, folder)?;
        let readings = Readings::new(control);
        let ready = self.stop.wait_for(READY, || {
            appliance.check()?;
            Ok(readings.is_healthy().then_some(()))
        })?;
        self.ready("the appliance", ready, &appliance)?;
        Ok((appliance, readings))
    }

    /// Starts the load balancer between the client and the server.
    fn balancer(
        &self,
        middle: &Namespace,
        client: &Namespace,
        server: &Namespace,
    ) -> Result<Child, DemoError> {
        for namespace in [middle, client, server] {
            without_ipv6(namespace)?;
        }
        let mut command = launch::inside(middle, launch::program()?)?;
        command
            .args([
                "simulate",
                "--appliance",
                "10.0.0.2",
                "--cookie-per-direction",
            ])
            .args(["--tun", "client0,server0", "--mtu", &INNER_MTU.to_string()])
            .stdout(Stdio::null());
        let mut balancer = Child::start("balancer", &mut command, self.workspace.folder())?;
        let ready = self.stop.wait_for(READY, || {
            balancer.check()?;
            let links = || fs::read_to_string("/proc/thread-self/net/dev");
            let links = middle.inside("list of links", links)?;
            // The second device is created last.
            Ok(links.contains("server0:").then_some(()))
        })?;
        self.ready("the load balancer", ready, &balancer)?;
        for (device, namespace) in [("client0", client), ("server0", server)] {
            let path: PathBuf = namespace.path();
            self.ip(
                middle,
                &format!("link set {device} netns {}", path.display()),
            )?;
        }
        self.ip(client, &format!("addr add {CLIENT}/32 dev client0"))?;
        self.ip(client, &format!("addr add {ATTACKER}/32 dev client0"))?;
        self.ip(server, &format!("addr add {SERVER}/32 dev server0"))?;
        self.ip(client, "link set client0 up")?;
        self.ip(server, "link set server0 up")?;
        let there = format!("route add 10.2.0.0/24 dev client0 src {CLIENT}");
        self.ip(client, &there)?;
        let back = format!("route add 10.1.0.0/24 dev server0 src {SERVER}");
        self.ip(server, &back)?;
        // Answers to forged addresses end here, also where the host forwards packets by default.
        self.ip(client, "route add blackhole 10.1.0.0/24")?;
        Ok(balancer)
    }

    /// Fails if a part was not ready in time.
    fn ready(&self, what: &str, ready: Option<()>, child: &Child) -> Result<(), DemoError> {
        ready.ok_or_else(|| DemoError::Late {
            what: what.to_owned(),
            seconds: READY.as_secs(),
            tail: child.tail(),
        })
    }
}

/// Turns IPv6 off for the devices that a namespace will get, so that its kernel sends no discovery,
/// which the appliance would drop. Where the system does not allow that, these drops are counted.
fn without_ipv6(namespace: &Namespace) -> Result<(), DemoError> {
    namespace.inside("settings", || {
        for devices in ["all", "default"] {
            let _ = fs::write(
                format!("/proc/sys/net/ipv6/conf/{devices}/disable_ipv6"),
                "1",
            );
        }
        Ok(())
    })
}

/// Writes a file that only its owner reads.
fn private(path: &Path, text: &str) -> io::Result<()> {
    let mut options = File::options();
    let file = options.write(true).create_new(true).mode(0o600).open(path);
    file?.write_all(text.as_bytes())
}

/// Returns a random token for the console.
fn token() -> Result<String, DemoError> {
    let mut random = [0; 16];
    let filled = SystemRandom::new().fill(&mut random);
    filled
        .map_err(|_| io::Error::other("the system has none"))
        .map_err(system("random numbers"))?;
    Ok(random.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Returns the appliance's configuration.
fn configuration(control: &Path, token: &Path, pages: &Pages) -> String {
    let (control, token) = (control.display(), token.display());
    let Pages {
        metrics_port,
        console_port,
        ..
    } = pages;
    format!(
        r#"# The configuration of `portcullis demo`.

[table]
max_sessions = 65_536

[geneve]
listen = "10.0.0.2"
sources = "10.0.0.1/32"

[run]
queue_delay = "2s"              # the machine may be busy, and every packet counts here
drain = 0
control = "{control}"

[metrics]
listen = "127.0.0.1:{metrics_port}"

[console]
listen = "127.0.0.1:{console_port}"
token_file = "{token}"

[limits]
max_half_open_per_source = {HALF_OPEN}

[policy]
default = "deny"
inside = "10.2.0.0/16"

[[policy.rule]]
name = "ping"
action = "allow"
protocol = "icmp"
icmp_types = "echo-request"

[[policy.rule]]
name = "dns"
action = "allow"
direction = "inbound"
protocol = "udp"
destination_ports = 53

[[policy.rule]]
name = "web"
action = "allow"
direction = "inbound"
protocol = "tcp"
destination_ports = 80

[[policy.rule]]
name = "ftp"                    # the port of the commands; data connections are announced there
action = "allow"
direction = "inbound"
protocol = "tcp"
destination_ports = 21
"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config_file;
    use crate::run::settings;

    #[test]
    fn the_configuration_is_valid_and_warns_of_nothing() {
        let pages = Pages {
            metrics_port: 9681,
            console_port: 9682,
            token: token().unwrap(),
        };
        assert_eq!(pages.token.len(), 32);
        let folder = Path::new("/run/portcullis-demo-1");
        let text = configuration(&folder.join("control"), &folder.join("token"), &pages);
        let (config, own) = config_file::parse(&text, "demo").unwrap();
        assert_eq!(settings::warnings(&config, &own), [""; 0]);
    }
}
