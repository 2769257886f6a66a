#include "containers/bundle.h"

#include <array>
#include <map>
#include <string_view>

#include "base/json.h"

namespace uccp::containers {
namespace {

constexpr const char* kPathDefault = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

// What root of a container may do in its own namespaces; those that container engines give by default.
constexpr std::array kCapabilities = {"CAP_CHOWN",  "CAP_DAC_OVERRIDE", "CAP_FSETID",  "CAP_FOWNER",
                                      "CAP_SETGID", "CAP_SETUID",       "CAP_SETPCAP", "CAP_NET_BIND_SERVICE",
                                      "CAP_KILL",   "CAP_SYS_CHROOT",   "CAP_NET_RAW"};

// System calls that change the kernel, look into others, or open further namespaces, in which more of the kernel would
// be within reach.
constexpr std::array kRefusedCalls = {"acct",
                                      "add_key",
                                      "bpf",
                                      "clock_adjtime",
                                      "clock_settime",
                                      "create_module",
                                      "delete_module",
                                      "fanotify_init",
                                      "finit_module",
                                      "fsconfig",
                                      "fsmount",
                                      "fsopen",
                                      "fspick",
                                      "get_kernel_syms",
                                      "init_module",
                                      "ioperm",
                                      "iopl",
                                      "io_uring_enter",
                                      "io_uring_register",
                                      "io_uring_setup",
                                      "kcmp",
                                      "kexec_file_load",
                                      "kexec_load",
                                      "keyctl",
                                      "lookup_dcookie",
                                      "mount",
                                      "mount_setattr",
                                      "move_mount",
                                      "move_pages",
                                      "name_to_handle_at",
                                      "nfsservctl",
                                      "open_by_handle_at",
                                      "open_tree",
                                      "perf_event_open",
                                      "pivot_root",
                                      "process_vm_readv",
                                      "process_vm_writev",
                                      "query_module",
                                      "quotactl",
                                      "quotactl_fd",
                                      "reboot",
                                      "request_key",
                                      "setdomainname",
                                      "sethostname",
                                      "setns",
                                      "settimeofday",
                                      "stime",
                                      "swapoff",
                                      "swapon",
                                      "sysfs",
                                      "syslog",
                                      "umount",
                                      "umount2",
                                      "unshare",
                                      "uselib",
                                      "userfaultfd",
                                      "ustat",
                                      "vhangup",
                                      "vm86",
                                      "vm86old"};

// Of clone(2): the kind of namespace that brings all the others.
constexpr uint64_t kNewUserNamespace = 0x10000000;
constexpr int kNotPermitted = 1;  // EPERM
constexpr int kNotThere = 38;     // ENOSYS: the C library then uses clone(2), whose flags can be seen

constexpr std::array kMasked = {"/proc/acpi",
                                "/proc/asound",
                                "/proc/kcore",
                                "/proc/keys",
                                "/proc/latency_stats",
                                "/proc/timer_list",
                                "/proc/timer_stats",
                                "/proc/sched_debug",
                                "/proc/scsi",
                                "/sys/firmware",
                                "/sys/devices/virtual/powercap"};
constexpr std::array kReadOnly = {"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"};

template <class Texts>
void add_texts(JsonWriter& json, const char* key, const Texts& texts) {
  json.key(key).begin_array();
  for (const auto& text : texts) json.value(std::string_view(text));
  json.end_array();
}

void add_mount(JsonWriter& json, const std::string& to, const char* type, const std::string& from,
               const std::vector<const char*>& options) {
  json.begin_object().key("destination").value(to).key("type").value(type).key("source").value(from);
  add_texts(json, "options", options);
  json.end_object();
}

void add_mounts(JsonWriter& json, const BundleSpec& spec) {
  json.key("mounts").begin_array();
  add_mount(json, "/proc", "proc", "proc", {"nosuid", "noexec", "nodev"});
  add_mount(json, "/dev", "tmpfs", "tmpfs", {"nosuid", "strictatime", "mode=755", "size=65536k"});
  add_mount(json, "/dev/pts", "devpts", "devpts", {"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"});
  add_mount(json, "/dev/shm", "tmpfs", "shm", {"nosuid", "noexec", "nodev", "mode=1777", "size=65536k"});
  add_mount(json, "/dev/mqueue", "mqueue", "mqueue", {"nosuid", "noexec", "nodev"});
  // A new /sys shows the network of who mounts it, and needs that to be the container's own.
  if (spec.host_network) add_mount(json, "/sys", "none", "/sys", {"rbind", "nosuid", "noexec", "nodev", "ro"});
  else add_mount(json, "/sys", "sysfs", "sysfs", {"nosuid", "noexec", "nodev", "ro"});
  add_mount(json, spec.folder, "bind", spec.folder, {"bind", "nosuid", "nodev", "rw"});
  add_mount(json, spec.private_folder, "tmpfs", "tmpfs", {"nosuid", "noexec", "nodev", "ro", "mode=0"});
  for (const std::string& file : spec.shown_files)
    add_mount(json, file, "bind", file, {"bind", "nosuid", "noexec", "nodev", "ro"});
  json.end_array();
}

template <class Texts>
JsonWriter& begin_refusal(JsonWriter& json, const Texts& names, int error) {
  json.begin_object();
  add_texts(json, "names", names);
  return json.key("action").value("SCMP_ACT_ERRNO").key("errnoRet").value(error);
}

void add_seccomp(JsonWriter& json) {
  json.key("seccomp").begin_object().key("defaultAction").value("SCMP_ACT_ALLOW").key("syscalls").begin_array();
  begin_refusal(json, kRefusedCalls, kNotPermitted).end_object();
  begin_refusal(json, std::array{"clone3"}, kNotThere).end_object();
  begin_refusal(json, std::array{"clone"}, kNotPermitted).key("args").begin_array().begin_object();
  json.key("index").value(0).key("value").value(kNewUserNamespace).key("valueTwo").value(kNewUserNamespace);
  json.key("op").value("SCMP_CMP_MASKED_EQ").end_object().end_array().end_object();
  json.end_array().end_object();
}

void add_process(JsonWriter& json, const BundleSpec& spec) {
  json.key("process").begin_object().key("terminal").value(false);
  json.key("user").begin_object().key("uid").value(0).key("gid").value(0).end_object();
  add_texts(json, "args", spec.arguments);
  add_texts(json, "env", spec.env);
  json.key("cwd").value(spec.working_directory).key("noNewPrivileges").value(true);
  json.key("capabilities").begin_object();
  for (const char* set : {"bounding", "effective", "permitted"}) add_texts(json, set, kCapabilities);
  json.end_object().end_object();
}

}  // namespace

std::string bundle_config(const BundleSpec& spec) {
  JsonWriter json;
  json.begin_object().key("ociVersion").value("1.0.2");
  add_process(json, spec);
  json.key("root").begin_object().key("path").value(spec.root).key("readonly").value(spec.read_only).end_object();
  json.key("hostname").value(spec.host_name);
  add_mounts(json, spec);
  json.key("linux").begin_object().key("namespaces").begin_array();
  for (const char* type : {"pid", "ipc", "uts", "mount", "cgroup"})
    json.begin_object().key("type").value(type).end_object();
  if (!spec.host_network) json.begin_object().key("type").value("network").end_object();
  json.end_array();
  add_texts(json, "maskedPaths", kMasked);
  add_texts(json, "readonlyPaths", kReadOnly);
  add_seccomp(json);
  json.end_object().end_object();
  return json.take();
}

std::vector<std::string> container_environment(const std::vector<std::string>& image,
                                               const std::vector<std::string>& task, bool keep_path) {
  std::map<std::string, std::string, std::less<>> variables = {{"PATH", kPathDefault}};
  const auto add = [&](std::string_view text) {
    const size_t equals = text.find('=');
    if (equals != std::string_view::npos && equals > 0)
      variables.insert_or_assign(std::string(text.substr(0, equals)), std::string(text.substr(equals + 1)));
  };
  for (const std::string& one : image) add(one);
  for (const std::string& one : task) {
    if (keep_path || !one.starts_with("PATH=")) add(one);
  }
  std::vector<std::string> env;
  for (const auto& [name, value] : variables) env.push_back(name + "=" + value);
  return env;
}

}  // namespace uccp::containers
