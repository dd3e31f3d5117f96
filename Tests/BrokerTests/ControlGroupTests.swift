import Testing

@testable import Broker

@Suite("Control groups")
struct ControlGroupTests {
    private static func group(_ files: [String: String]) -> ControlGroup { ControlGroup { files[$0] } }

    @Test("the limit of a service is found where the system says that the process is (version 2)")
    func service() {
        let group = Self.group([
            "/proc/self/cgroup": "0::/system.slice/arena-broker.service\n",
            "/sys/fs/cgroup/system.slice/memory.max": "max\n",
            "/sys/fs/cgroup/system.slice/arena-broker.service/memory.max": "536870912\n",
            "/sys/fs/cgroup/system.slice/arena-broker.service/memory.current": "4096\n",
        ])
        #expect(group.limitBytes == 512 << 20)
        #expect(group.usedBytes == 4_096)
    }

    @Test("the smallest limit holds, of the group or of any that it is in")
    func ancestors() {
        let group = Self.group([
            "/proc/self/cgroup": "0::/a/b/c\n", "/sys/fs/cgroup/a/memory.max": "1000000\n",
            "/sys/fs/cgroup/a/b/memory.max": "max\n", "/sys/fs/cgroup/a/b/c/memory.max": "2000000\n",
        ])
        #expect(group.limitBytes == 1_000_000)
    }

    @Test("in a container the root of what is mounted is the container's")
    func container() {
        #expect(
            Self.group(["/proc/self/cgroup": "0::/\n", "/sys/fs/cgroup/memory.max": "67108864\n"]).limitBytes == 64
                << 20)
        // The system's name for it, of which nothing is mounted.
        let first = Self.group([
            "/proc/self/cgroup": "12:pids:/docker/f00\n4:cpu,memory:/docker/f00\n0::/docker/f00\n",
            "/sys/fs/cgroup/memory/memory.limit_in_bytes": "67108864\n",
            "/sys/fs/cgroup/memory/memory.usage_in_bytes": "8192\n",
        ])
        #expect(first.limitBytes == 64 << 20 && first.usedBytes == 8_192)
        let outside = Self.group(["/proc/self/cgroup": "0::/../other\n", "/sys/fs/cgroup/memory.max": "1048576\n"])
        #expect(outside.limitBytes == 1 << 20)
    }

    @Test("version 1 is asked where it has the memory, and its word for no limit is none")
    func first() {
        let text = "9:memory:/user.slice\n0::/user.slice\n"
        let limited = Self.group([
            "/proc/self/cgroup": text, "/sys/fs/cgroup/memory/user.slice/memory.limit_in_bytes": "1048576\n",
            "/sys/fs/cgroup/user.slice/memory.max": "4096\n",
        ])
        #expect(limited.limitBytes == 1 << 20)
        let free = Self.group([
            "/proc/self/cgroup": text,
            "/sys/fs/cgroup/memory/user.slice/memory.limit_in_bytes": "9223372036854771712\n",
        ])
        #expect(free.limitBytes == nil && free.usedBytes == nil)
        #expect(Self.group([:]).limitBytes == nil)
    }
}
