// Classifies a bitmap with @FILE@. Put it and labels.txt into src/main/assets, and into build.gradle.kts:
//   implementation("com.google.ai.edge.litert:litert:1.4.1")
// Input: @PIXEL@ (1, @HEIGHT@, @WIDTH@, @CHANNELS@), pixels 0 to 255 as they are; output (1, @CLASSES@): @SCORE@.
import android.content.Context
import android.graphics.Bitmap
import java.nio.ByteBuffer
import java.nio.ByteOrder
import org.tensorflow.lite.Interpreter

class Classify(context: Context) : AutoCloseable {
    private val labels = context.assets.open("labels.txt").bufferedReader().readLines()
    private val interpreter = Interpreter(direct(context.assets.open("@FILE@").readBytes()))

    /** The most likely classes of a photograph and their probabilities, the best first. */
    fun classify(photo: Bitmap, top: Int = 5): List<Pair<String, Float>> =
        labels.zip(probabilities(pixels(photo)).toList()).sortedByDescending { it.second }.take(top)

    /** Pixels as `probabilities` takes them: a bitmap of the net's size as it is, another's shorter side resized, its centre. */
    fun pixels(photo: Bitmap): IntArray {
        val shorter = minOf(photo.width, photo.height)
        val fitted = if (photo.width == @WIDTH@ && photo.height == @HEIGHT@) photo else
            Bitmap.createScaledBitmap(photo, photo.width * @RESIZE@ / shorter, photo.height * @RESIZE@ / shorter, true)
        val left = Math.rint((fitted.width - @WIDTH@) / 2.0).toInt()
        val upper = Math.rint((fitted.height - @HEIGHT@) / 2.0).toInt()
        return IntArray(@HEIGHT@ * @WIDTH@).also { fitted.getPixels(it, 0, @WIDTH@, left, upper, @WIDTH@, @HEIGHT@) }
    }

    /** Probabilities by class of @HEIGHT@ x @WIDTH@ pixels 0xAARRGGBB, row by row; of golden/0.png: "scores"[0] of bundle.json. */
    fun probabilities(pixels: IntArray): FloatArray {
        require(pixels.size == @HEIGHT@ * @WIDTH@) { "Expected @HEIGHT@ x @WIDTH@ pixels. Received: ${pixels.size}." }
        val image = ByteBuffer.allocateDirect(pixels.size * @PIXEL_BYTES@).order(ByteOrder.nativeOrder())
        for (pixel in pixels) {
            val (red, green, blue) = Triple(pixel shr 16 and 255, pixel shr 8 and 255, pixel and 255)
            @PUT@
        }
        val scores = Array(1) { @SCORE_KOTLIN@(@CLASSES@) }
        interpreter.run(image.rewind(), scores)
        return @VALUE_KOTLIN@
    }

    override fun close() = interpreter.close()

    private fun direct(bytes: ByteArray) =
        ByteBuffer.allocateDirect(bytes.size).order(ByteOrder.nativeOrder()).put(bytes).apply { rewind() }
}
