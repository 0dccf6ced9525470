// Classifies a bitmap with @FILE@. Put it and labels.txt into src/main/assets, and into build.gradle.kts:
//   implementation("com.google.ai.edge.litert:litert:1.4.1")
// Input: @PIXEL@ (1, @HEIGHT@, @WIDTH@, @CHANNELS@), pixels 0 to 255 as they are; output: float (1, @CLASSES@), probabilities.
import android.content.Context
import android.graphics.Bitmap
import java.nio.ByteBuffer
import java.nio.ByteOrder
import org.tensorflow.lite.Interpreter

class Classify(context: Context) : AutoCloseable {
    private val labels = context.assets.open("labels.txt").bufferedReader().readLines()
    private val interpreter = Interpreter(direct(context.assets.open("@FILE@").readBytes()))

    /** The most likely classes of a photograph and their probabilities, the best first. */
    fun classify(photo: Bitmap, top: Int = 5): List<Pair<String, Float>> {
        val shorter = minOf(photo.width, photo.height)
        val resized = Bitmap.createScaledBitmap(photo, photo.width * @RESIZE@ / shorter, photo.height * @RESIZE@ / shorter, true)
        val pixels = IntArray(@HEIGHT@ * @WIDTH@)
        resized.getPixels(pixels, 0, @WIDTH@, (resized.width - @WIDTH@) / 2, (resized.height - @HEIGHT@) / 2, @WIDTH@, @HEIGHT@)
        val image = ByteBuffer.allocateDirect(pixels.size * @PIXEL_BYTES@).order(ByteOrder.nativeOrder())
        for (pixel in pixels) {
            val (red, green, blue) = Triple(pixel shr 16 and 255, pixel shr 8 and 255, pixel and 255)
            @PUT@
        }
        val scores = Array(1) { FloatArray(@CLASSES@) }
        interpreter.run(image.rewind(), scores)
        return labels.zip(scores[0].toList()).sortedByDescending { it.second }.take(top)
    }

    override fun close() = interpreter.close()

    private fun direct(bytes: ByteArray) =
        ByteBuffer.allocateDirect(bytes.size).order(ByteOrder.nativeOrder()).put(bytes).apply { rewind() }
}
