import java.io.ByteArrayOutputStream;
import java.util.HexFormat;
import net.jpountz.lz4.LZ4BlockOutputStream;

/** Reads lines "BLOCK_SIZE HEX", writes each line's bytes as a stream of lz4-java, in hex. */
public class Lz4Blocks {
    public static void main(String[] arguments) throws Exception {
        for (String line : new String(System.in.readAllBytes()).strip().split("\n")) {
            String[] words = line.split(" ", -1);
            ByteArrayOutputStream encoded = new ByteArrayOutputStream();
            try (LZ4BlockOutputStream stream = new LZ4BlockOutputStream(encoded, Integer.parseInt(words[0]))) {
                stream.write(HexFormat.of().parseHex(words[1]));
            }
            System.out.println(HexFormat.of().formatHex(encoded.toByteArray()));
        }
    }
}
