import CZstd
import DumpFormat
import Glibc
import Testing

@Suite("a dump file appears whole, or not at all")
struct DumpFileTests {
    /// A directory that goes away with the test.
    private final class Folder {
        let path: String

        init() {
            var template = Array("/tmp/arena-dump-folder-XXXXXX".utf8CString)
            precondition(mkdtemp(&template) != nil)
            path = template.withUnsafeBufferPointer { String(cString: $0.baseAddress!) }
        }

        var names: [String] {
            guard let folder = opendir(path) else { return [] }
            defer { closedir(folder) }
            var names: [String] = []
            while let entry = readdir(folder) {
                let name = withUnsafeBytes(of: entry.pointee.d_name) {
                    String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self)
                }
                if name != ".", name != ".." { names.append(name) }
            }
            return names.sorted()
        }

        deinit {
            for name in names { unlink("\(path)/\(name)") }
            rmdir(path)
        }
    }

    @Test("the name appears at commit, and only the owner may read the file")
    func commit() throws {
        let folder = Folder()
        let file = try DumpFile.create(directory: folder.path, name: "a.dump.zst")
        try DumpWriter(sink: file.sink).write(DamageTests.small)
        #expect(folder.names == [".a.dump.zst.partial"])
        let path = try file.commit()
        #expect(folder.names == ["a.dump.zst"])
        var status = stat()
        stat(path, &status)
        #expect(status.st_mode & 0o777 == 0o600)
        expectSame(try DumpReader.read(path: path, .everything), DamageTests.small)
    }

    @Test("a file that is not committed leaves nothing behind")
    func abandoned() throws {
        let folder = Folder()
        do {
            let file = try DumpFile.create(directory: folder.path, name: "a.dump.zst")
            try DumpWriter(sink: file.sink).write(DamageTests.small)
            #expect(!folder.names.isEmpty)
        }
        #expect(folder.names.isEmpty)
    }

    @Test("what a killed writer left is replaced, an existing dump is not")
    func leftovers() throws {
        let folder = Folder()
        close(open("\(folder.path)/.a.dump.zst.partial", O_CREAT | O_WRONLY, 0o644))
        _ = try DumpFile.create(directory: folder.path, name: "a.dump.zst").commit()
        do {
            _ = try DumpFile.create(directory: folder.path, name: "a.dump.zst").commit()
            Issue.record("the existing dump was overwritten")
        } catch {
            #expect(error.kind == .alreadyExists)
        }
        _ = try DumpFile.create(directory: folder.path, name: "a.dump.zst", replacing: true).commit()
        #expect(folder.names == ["a.dump.zst"])
    }

    @Test("a full disk is a typed error that says what to do")
    func fullDisk() throws {
        let descriptor = open("/dev/full", O_WRONLY)
        defer { close(descriptor) }
        do {
            try DumpWriter(sink: DescriptorSink(descriptor: descriptor, path: "/dev/full")).write(DamageTests.small)
            Issue.record("writing to a full disk succeeded")
        } catch {
            #expect(error.kind == .noSpace)
            #expect(error.message.contains("make room"))
        }
    }

    @Test("a disk that fills up half way leaves no partial file")
    func fullHalfWay() async {
        await #expect(processExitsWith: .success) {
            signal(SIGXFSZ, SIG_IGN)
            var limit = rlimit(rlim_cur: 100, rlim_max: 100)
            setrlimit(__rlimit_resource_t(1), &limit)
            let folder = Folder()
            var kind: DumpError.Kind?
            do throws(DumpError) {
                let file = try DumpFile.create(directory: folder.path, name: "a.dump.zst")
                try DumpWriter(sink: file.sink).write(DamageTests.small)
            } catch {
                kind = error.kind
            }
            precondition(kind == .noSpace)
            precondition(folder.names.isEmpty)
        }
    }

    @Test("a missing directory is named")
    func missingDirectory() {
        do {
            _ = try DumpFile.create(directory: "/tmp/no-such-folder", name: "a").commit()
            Issue.record("a file was made in a missing directory")
        } catch {
            #expect(error.kind == .notFound)
        }
    }

    @Test("the file is a plain zstd stream to zstd itself")
    func plainZstd() throws {
        let bytes = try encode(DamageTests.small)
        var offset = 0
        var content = 0
        while offset < bytes.count {
            let (size, declared, decoded) = bytes[offset...].withUnsafeBytes { rest in
                let size = ZSTD_findFrameCompressedSize(rest.baseAddress, rest.count)
                let declared = Int(ZSTD_getFrameContentSize(rest.baseAddress, rest.count))
                var output = [UInt8](repeating: 0, count: declared)
                return (size, declared, ZSTD_decompress(&output, declared, rest.baseAddress, size))
            }
            try #require(ZSTD_isError(size) == 0)
            #expect(decoded == declared)
            offset += size
            content += declared
        }
        #expect(offset == bytes.count)
        #expect(content > 0)
    }
}
